//! Going on after a daemon's death: the supervisor as it was, from the store.

use super::action::AppKey;
use super::ladder;
use super::process::{Process, Rest, Second, Want};
use super::{Action, Settings, Supervisor, trigger};
use crate::id::{Incarnation, PmId};
use crate::supervisor::Calendar;
use crate::time::Now;
use std::collections::BTreeSet;

/// Makes of a stored process what is left of it when the machine was started
/// anew: none of its runs, and nothing to be judged by the restart policy. What
/// was to run is started, once.
pub fn after_reboot(p: &mut Process) {
    let had_run = p.serving.take().is_some();
    p.second = None;
    if p.want == Want::Up && had_run {
        p.rest = Rest::Due;
    }
}

impl Supervisor {
    /// Returns a supervisor that goes on with these processes.
    ///
    /// `last_run` is the highest run id ever used, so that none is used twice.
    /// Runs are taken as alive; the caller then says `Exited` (and `TreeGone`)
    /// of those that are not. No client waits for anything: requests died with
    /// the connection.
    pub fn restore(
        settings: Settings,
        calendar: Box<dyn Calendar>,
        processes: Vec<Process>,
        last_run: Incarnation,
        now: Now,
    ) -> Supervisor {
        let mut supervisor = Supervisor::new(settings, calendar);
        supervisor.ids.next_run = last_run.0;
        for mut process in processes {
            process.waiters.clear();
            trigger::schedule(&mut process, supervisor.calendar.as_ref(), now);
            for run in process.runs() {
                supervisor.ids.next_run = supervisor.ids.next_run.max(run.id.0);
                supervisor.ids.owners.insert(run.id, process.pm_id);
            }
            supervisor.next_pm_id = supervisor.next_pm_id.max(process.pm_id.0.saturating_add(1));
            supervisor.processes.insert(process.pm_id, process);
        }
        supervisor
    }

    /// Takes up what the previous daemon left half done: a slot that was to be
    /// started or ended when it died, sockets of slots that are gone.
    pub fn resume(&mut self, now: Now, out: &mut Vec<Action>) {
        let ids: Vec<PmId> = self.processes.keys().copied().collect();
        for id in ids {
            self.with_process(id, now, out, |p, ctx| {
                let runs = p.serving.iter().chain(p.second.iter().map(Second::run));
                runs.for_each(|run| ladder::say_again(run, ctx));
            });
        }
        let apps: BTreeSet<AppKey> = self.processes.values().map(Process::app_key).collect();
        for app in apps {
            self.announce_slots(app, out);
        }
        self.persist(out);
    }
}
