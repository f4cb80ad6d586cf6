//! `musher gc`: the garbage collector of an app, run by its agent.
//!
//! The question goes to the agent, the answer comes back when the app's event
//! loop gets to it; nothing waits meanwhile. A process without an agent never
//! answers, so there is a limit.

use super::hub::Hub;
use super::rpc::ReplyTo;
use musher_core::app::agent::is_node;
use musher_core::app::{AppSpec, Interpreter};
use musher_core::cluster::message::Collected;
use musher_core::id::{Incarnation, PmId};
use musher_core::time::Now;
use musher_core::wire::rpc::{error_body, value_body};
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long an agent may take; longer than the client waits for nothing else.
const PATIENCE: Duration = Duration::from_secs(8);

/// Questions that wait for an agent. At most one a call: the calls in flight
/// are bounded.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    last_id: u64,
    asked: HashMap<u64, (Incarnation, oneshot::Sender<Collected>)>,
}

impl Garbage {
    fn ask(&mut self, run: Incarnation) -> (u64, oneshot::Receiver<Collected>) {
        self.asked.retain(|_, (_, answer)| !answer.is_closed());
        self.last_id += 1;
        let (answer, wait) = oneshot::channel();
        self.asked.insert(self.last_id, (run, answer));
        (self.last_id, wait)
    }

    /// Takes an answer; one that nobody asked this run for changes nothing.
    fn answer(&mut self, run: Incarnation, collected: Collected) {
        let is_asked = |(asked, _): &(Incarnation, _)| *asked == run;
        if self.asked.get(&collected.id).is_some_and(is_asked)
            && let Some((_, answer)) = self.asked.remove(&collected.id)
        {
            // Nobody waits for it any more.
            let _ = answer.send(collected);
        }
    }

    /// The run is over: nothing will come from it.
    pub(crate) fn forget(&mut self, run: Incarnation) {
        self.asked.retain(|_, (asked, _)| *asked != run);
    }
}

impl Hub {
    /// Lets the agent of a process collect garbage, and answers when it has.
    pub(crate) fn collect_garbage(&mut self, id: PmId, reply: ReplyTo, now: Now) {
        let view = self.supervisor.view(id, now);
        let Some(view) = view else {
            return reply.send(&error_body(&format!("{id} id unknown")));
        };
        if let Some(why) = no_agent(&view.spec) {
            return reply.send(&error_body(&format!("process {id} has no agent: {why}")));
        }
        let Some(run) = view.run else {
            return reply.send(&error_body(&format!("process {id} does not run")));
        };
        let (question, answer) = self.garbage.ask(run);
        self.balancer.collect(run, question);
        tokio::task::spawn_local(async move {
            let body = match tokio::time::timeout(PATIENCE, answer).await {
                Ok(Ok(Collected { heap, rss, .. })) => value_body(json!({
                    "pm_id": id.0,
                    "heap_before": heap.0, "heap_after": heap.1,
                    "rss_before": rss.0, "rss_after": rss.1,
                })),
                Ok(Err(_)) => error_body(&format!("process {id} ended before it answered")),
                Err(_) => error_body(&format!(
                    "process {id} did not answer within {} s: it has no agent (see \
                     `musher describe {id}`), or its event loop is blocked",
                    PATIENCE.as_secs()
                )),
            };
            reply.send(&body);
        });
    }

    /// An agent has run the garbage collector.
    pub(crate) fn collected(&mut self, run: Incarnation, collected: Collected) {
        self.garbage.answer(run, collected);
    }
}

fn no_agent(spec: &AppSpec) -> Option<&'static str> {
    let is_node = match &spec.interpreter {
        Interpreter::Program(program) => is_node(program),
        Interpreter::None => false,
    };
    match (is_node, spec.agent) {
        (false, _) => Some("it is not run by Node"),
        (true, false) => Some("it is started with `agent: false`"),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_run_that_was_asked_can_answer() {
        let mut garbage = Garbage::default();
        let (id, mut wait) = garbage.ask(Incarnation(1));
        let collected = Collected {
            id,
            ..Collected::default()
        };
        garbage.answer(Incarnation(2), collected);
        assert!(wait.try_recv().is_err());
        garbage.answer(Incarnation(1), collected);
        assert_eq!(wait.try_recv(), Ok(collected));
        let (_, mut wait) = garbage.ask(Incarnation(3));
        garbage.forget(Incarnation(3));
        assert_eq!(wait.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
