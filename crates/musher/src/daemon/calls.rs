//! A client's call: answered from what is known, or turned into an event.

use super::hub::Hub;
use super::rpc::ReplyTo;
use musher_core::app::ExecMode;
use musher_core::exit::Signal;
use musher_core::id::{PmId, RequestId};
use musher_core::supervisor::{Event, Reply};
use musher_core::time::Now;
use musher_core::view::{ProcessView, Status};
use musher_core::wire::pm2_env::{self, Detail};
use musher_core::wire::rpc::{
    Addressee, Answer, Call, CallError, error_body, methods_body, value_body,
};
use musher_core::wire::{bus as payload, rpc::ProfileKind};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// The version of PM2 whose behaviour this daemon shows to PM2's clients: they
/// compare it with their own.
pub(crate) const PM2_VERSION: &str = "7.0.4";

impl Hub {
    /// Answers a call, now or when the supervisor does.
    pub(crate) fn on_call(&mut self, id: RequestId, call: Call, reply: ReplyTo) {
        let now = musher_os::clock::now();
        match call {
            Call::Methods => reply.send(&methods_body()),
            Call::Ping => reply.send(&value_body(json!({ "msg": "pong" }))),
            Call::GetVersion => reply.send(&value_body(PM2_VERSION.into())),
            Call::GetMonitorData { slim } => {
                self.sample(now);
                let detail = if slim { Detail::Slim } else { Detail::Full };
                let views = self.supervisor.views(now);
                reply.send_text(&pm2_env::list_reply(&views, detail));
            }
            Call::GetSystemData => reply.send(&value_body(json!({}))),
            Call::GetReport => reply.send(&value_body(self.report())),
            Call::Request(request, answer) => {
                self.waiting.insert(id, (answer, reply));
                self.handle(Event::Request(id, request));
            }
            Call::History { name, limit } => self.history(name, limit, reply),
            Call::Balance => self.balance(now, reply),
            Call::CollectGarbage { id } => self.collect_garbage(id, reply, now),
            Call::ReloadLogs => self.reload_logs(reply),
            Call::Watch { .. } => reply.send(&value_body(json!({ "success": true }))),
            Call::KillMe { pid } => self.kill_me(pid, now),
            Call::Profile { kind, .. } => {
                reply.send(&value_body(json!({ "error": unprofiled(kind) })))
            }
            Call::Update { executable } => self.on_update(executable, reply),
            Call::SignalName { name, signal } => {
                answer(reply, self.signal_named(&name, signal, now))
            }
            Call::SendData { id, packet } => answer(reply, self.send_data(id, packet, now)),
            Call::MsgProcess {
                to: Addressee::Id(id),
                action,
                message,
            } => {
                answer(reply, self.trigger(id, &action, &message, now));
            }
            Call::MsgProcess {
                to: Addressee::Name(name),
                action,
                message,
            } => {
                answer(reply, self.trigger_named(&name, &action, &message, now));
            }
            Call::SendLine { id, line } => answer(reply, self.send_line(id, &line, now)),
            Call::Notify {
                id,
                action,
                manually,
            } => {
                answer(reply, self.notify(id, &action, manually, now));
            }
        }
    }

    /// Answers with the history, read off the loop.
    fn history(&self, name: Option<String>, limit: u32, reply: ReplyTo) {
        let answer = move |entries: Result<Vec<String>, String>| match entries {
            Ok(entries) => reply.send_text(&format!("{{\"args\":[[{}]]}}", entries.join(","))),
            Err(reason) => reply.send(&error_body(&format!("no history: {reason}"))),
        };
        self.store.read_history(name, limit, Box::new(answer));
    }

    /// Answers with what the balance thread says of its addresses.
    fn balance(&self, now: Now, reply: ReplyTo) {
        let views = self.supervisor.views(now);
        let ids = views
            .iter()
            .filter_map(|view| Some((view.run?, view.pm_id)));
        let ids: HashMap<_, _> = ids.collect();
        self.balancer.overview(move |addresses| {
            let addresses = addresses.iter().map(|address| address.json(&ids));
            reply.send(&value_body(addresses.collect()));
        });
    }

    /// Samples every living run and tells the supervisor.
    pub(crate) fn sample(&mut self, now: Now) {
        let samples = self.sampler.sample(&self.children, now.mono);
        if !samples.is_empty() {
            self.handle(Event::Sampled(samples));
        }
    }

    fn signal_named(&self, name: &str, signal: Signal, now: Now) -> Answered {
        let views: Vec<ProcessView> = self
            .named(name, now)
            .filter(|view| view.pid.is_some())
            .collect();
        if views.is_empty() {
            return Err(CallError::UnknownName);
        }
        for run in views.iter().filter_map(|view| view.run) {
            // It may have ended meanwhile; its exit is on the way.
            let _ = self.children.signal(run, signal);
        }
        let body = Answer::All.body(&Ok(Reply::Done), &self.supervisor.views(now));
        Ok(Some(body["args"][0].clone()))
    }

    fn send_data(&self, id: PmId, packet: Value, now: Now) -> Answered {
        let view = self.receiver(id, now)?;
        self.tell(&view, &packet);
        Ok(Some(json!({ "success": true, "data": packet })))
    }

    fn trigger(&self, id: PmId, action: &str, message: &Value, now: Now) -> Answered {
        let unknown = || CallError::UnknownId(id.to_string());
        let view = self.supervisor.view(id, now).ok_or_else(unknown)?;
        if !knows(&view, action) {
            let (action, name) = (action.to_owned(), view.spec.name.clone());
            return Err(CallError::UnknownAction { action, name });
        }
        if view.run.is_none() {
            return Err(CallError::Offline(id));
        }
        self.tell(&view, message);
        Ok(Some(json!({ "process_count": 1, "success": true })))
    }

    fn trigger_named(&self, name: &str, action: &str, message: &Value, now: Now) -> Answered {
        let views: Vec<ProcessView> = self
            .named(name, now)
            .filter(|view| knows(view, action))
            .collect();
        for view in &views {
            self.tell(view, message);
        }
        Ok(Some(
            json!({ "process_count": views.len(), "success": true }),
        ))
    }

    fn send_line(&self, id: PmId, line: &str, now: Now) -> Answered {
        let view = self.receiver(id, now)?;
        match view.spec.mode {
            ExecMode::Cluster => return Err(CallError::LineToCluster),
            ExecMode::Fork => {}
        }
        if let Some(child) = view.run.and_then(|run| self.children.get(run)) {
            child
                .write_line(line)
                .map_err(|_| CallError::OfflineReceiver(id))?;
        }
        Ok(Some(json!({ "pm_id": id.0, "line": line })))
    }

    fn notify(&self, id: PmId, action: &str, manually: bool, now: Now) -> Answered {
        let view = self
            .supervisor
            .view(id, now)
            .ok_or(CallError::NotifyUnknownId)?;
        let event = payload::process_event(action, manually, &view, now.wall);
        self.bus.publish("process:event", &event);
        Ok(None)
    }

    fn receiver(&self, id: PmId, now: Now) -> Result<ProcessView, CallError> {
        let view = self.supervisor.view(id, now);
        let view = view.ok_or_else(|| CallError::UnknownReceiver(id.to_string()))?;
        match view.status {
            Status::Online | Status::Launching => Ok(view),
            Status::Stopping | Status::Stopped | Status::WaitingRestart | Status::Errored => {
                Err(CallError::OfflineReceiver(id))
            }
        }
    }

    fn tell(&self, view: &ProcessView, message: &Value) {
        if let Some(run) = view.run {
            self.balancer.send(run, message.to_string().into_bytes());
        }
    }

    /// Returns the processes PM2 means by a name: app name, exec path or its
    /// base name, namespace, or `all`.
    fn named(&self, name: &str, now: Now) -> impl Iterator<Item = ProcessView> {
        let name = name.to_owned();
        self.supervisor.views(now).into_iter().filter(move |view| {
            let script = Path::new(&view.spec.script);
            name == "all"
                || view.spec.name == name
                || view.spec.namespace == name
                || view.spec.script == name
                || script
                    .file_name()
                    .is_some_and(|base| base.to_str() == Some(&name))
        })
    }

    fn reload_logs(&self, reply: ReplyTo) {
        let done = self.pump.reopen();
        tokio::task::spawn_local(async move {
            // The log thread answers within one round of its loop.
            while matches!(done.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            reply.send(&value_body(json!({})));
        });
    }

    fn kill_me(&mut self, pid: Option<u32>, now: Now) {
        self.log("pm2 has been killed by user", now);
        self.bus
            .publish(payload::PM2_KILL, &payload::kill("via CLI"));
        self.killed_by = pid;
        self.handle(Event::Shutdown);
    }

    fn report(&self) -> Value {
        let uid = musher_os::user::effective_uid();
        json!({
            "pm2_version": PM2_VERSION,
            "musher_version": crate::version::own(),
            "pid": std::process::id(),
            "executable": executable(),
            "update_failed": self.update_failed,
            "node_version": "",
            "node_path": "",
            "argv0": std::env::args().next().unwrap_or_default(),
            "argv": std::env::args().collect::<Vec<_>>(),
            "user": musher_os::user::name_of_uid(uid),
            "uid": uid,
            "gid": Value::Null,
            "env": {},
            "managed_apps": self.supervisor.processes().count(),
            "started_at": self.started.wall.0,
            "lost_log_bytes": self.pump.lost_bytes(),
            "failed_state_writes": self.store.n_failed(),
        })
    }
}

/// Returns the file this process executes; the kernel marks one that was removed.
fn executable() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    path.display().to_string()
}

/// What a call comes to that needs no step: a value, nothing, or a refusal.
type Answered = Result<Option<Value>, CallError>;

fn answer(reply: ReplyTo, outcome: Answered) {
    let body = match outcome {
        Ok(Some(value)) => value_body(value),
        Ok(None) => json!({ "args": [] }),
        Err(error) => error_body(&error.to_string()),
    };
    reply.send(&body);
}

/// Returns whether an app registered an action.
fn knows(view: &ProcessView, action: &str) -> bool {
    view.axm
        .actions
        .iter()
        .any(|known| known["action_name"] == *action)
}

const fn unprofiled(kind: ProfileKind) -> &'static str {
    match kind {
        ProfileKind::Cpu | ProfileKind::Memory => {
            "the daemon is no Node process: profile an app with its own inspector"
        }
    }
}
