//! `musher update`: this daemon makes room for another executable.
//!
//! What it knows is written and what it holds is parked, as always; so it asks
//! the keeper to start the other one in its place, and leaves without touching an
//! app. It goes when no client waits for an answer, so that nobody's request is
//! cut; and not before the keeper has said that it knows what follows. What comes
//! of it is the keeper's and the next daemon's business.

use super::hub::Hub;
use super::keeping::KeeperNote;
use super::rpc::{Incoming, ReplyTo};
use super::{Inbox, Wake, journal};
use crate::keeper::protocol::OLDEST_KEEPER;
use musher_core::wire::rpc::{Call, error_body, value_body};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Longest wait for the answers of others, and for the keeper's.
const PATIENCE: Duration = Duration::from_secs(10);

/// Turns given to the connections to write what was answered last.
const N_LAST_TURNS: usize = 8;

/// Calls still answered on the way out.
const MAX_LAST_CALLS: usize = 1024;

/// An update under way.
#[derive(Debug)]
pub(crate) struct Update {
    executable: String,
    stage: Stage,
    reply: ReplyTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For the answers of other calls.
    Waiting,
    /// For the keeper's word.
    Asked,
}

impl Hub {
    /// Begins to hand over, or answers why not.
    pub(super) fn on_update(&mut self, executable: String, reply: ReplyTo) {
        if let Err(why) = self.may_update(&executable) {
            return reply.send(&error_body(&why));
        }
        self.n_updates += 1;
        self.update = Some(Update {
            executable,
            stage: Stage::Waiting,
            reply,
        });
        let (n, tell) = (self.n_updates, self.keeping.tell.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(PATIENCE).await;
            // A closed inbox means that the daemon ended.
            let _ = tell.send(KeeperNote::Late(n)).await;
        });
    }

    fn may_update(&self, executable: &str) -> Result<(), String> {
        if self.update.is_some() {
            return Err("an update is under way".to_owned());
        }
        let Some(keeper) = &self.keeper else {
            return Err("the daemon has no keeper at the moment; try again".to_owned());
        };
        if keeper.version() < OLDEST_KEEPER {
            return Err("the keeper is too old for an update".to_owned());
        }
        match Path::new(executable) {
            path if !path.is_absolute() => Err(format!("{executable} is no absolute path")),
            path if !path.is_file() => Err(format!("{executable} is no file")),
            _ => Ok(()),
        }
    }

    /// Asks the keeper once no client waits for an answer.
    pub(super) fn go_on_with_update(&mut self) {
        let is_due = |update: &Update| update.stage == Stage::Waiting;
        if !self.waiting.is_empty() || !self.update.as_ref().is_some_and(is_due) {
            return;
        }
        let (Some(keeper), Some(update)) = (&self.keeper, &mut self.update) else {
            return;
        };
        update.stage = Stage::Asked;
        if let Err(error) = keeper.hand_over(&update.executable) {
            self.refuse_update(&format!("the keeper cannot be told: {error}"));
        }
    }

    /// The keeper knows what follows.
    pub(super) fn on_go(&mut self) {
        match self.update.take() {
            Some(update) if update.stage == Stage::Asked => {
                let executable = &update.executable;
                journal::line(&format!("handing over to {executable}"));
                update.reply.send(&value_body(json!({ "success": true })));
                self.is_leaving = true;
            }
            // It was given up meanwhile: the keeper takes this for "I stay".
            Some(_) | None => {
                if let Some(keeper) = &self.keeper {
                    let _ = keeper.ready();
                }
            }
        }
    }

    /// An update has waited long enough.
    pub(super) fn on_late(&mut self, n: u64) {
        if n != self.n_updates {
            return;
        }
        match self.update.as_ref().map(|update| update.stage) {
            Some(Stage::Waiting) => {
                let n = self.waiting.len();
                self.refuse_update(&format!(
                    "{n} commands are under way; repeat the update when they are done"
                ));
            }
            Some(Stage::Asked) => self.refuse_update("the keeper does not answer; try again"),
            None => {}
        }
    }

    /// Answers that the update does not take place.
    pub(super) fn refuse_update(&mut self, why: &str) {
        if let Some(update) = self.update.take() {
            update.reply.send(&error_body(why));
        }
    }

    /// Leaves everything behind as it is: what others said is taken in, what is
    /// known is written, what was read is in the log files.
    pub(super) async fn leave(mut self, inbox: &mut Inbox) {
        for _ in 0..MAX_LAST_CALLS {
            match inbox.calls.try_recv() {
                // One that changes something is not begun any more.
                Ok(Incoming::Call { call, .. }) if matches!(*call, Call::Request(..)) => {}
                Ok(incoming) => self.on_wake(Wake::Call(incoming)),
                Err(_) => break,
            }
        }
        for _ in 0..N_LAST_TURNS {
            tokio::task::yield_now().await;
        }
        self.balancer.leave();
        while let Ok(event) = inbox.balance.try_recv() {
            self.on_wake(Wake::Balance(event));
        }
        while let Ok((run, line)) = inbox.apps.try_recv() {
            self.on_wake(Wake::App(run, line));
        }
        while let Ok(event) = inbox.children.try_recv() {
            self.on_wake(Wake::Child(event));
        }
    }
}
