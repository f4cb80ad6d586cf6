//! A roll: one reload over several processes, as one transaction.
//!
//! At most `reload.parallel` processes of an app are between their old and
//! their new run at the same time. The first failure stops the roll: what was
//! not reached stays as it is, and with `on_failure: 'rollback'` what was
//! already replaced goes back to the release it came from. The answer is a
//! [`Receipt`], whatever happened. A roll whose client is gone goes on.

use super::process::{Goal, Process, Waiter, Want};
use super::request::{Changes, Reply, RequestError};
use super::revision;
use super::{Action, AppKey, Drained, Record, Supervisor, lifecycle, reload, requests};
use crate::app::{AppSpec, OnFailure};
use crate::id::{PmId, RequestId};
use crate::time::{Millis, Mono, Now, Wall};
use crate::view::ProcessView;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What a roll leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum RollTo {
    /// The app with these changes; none reads the same release again.
    Changed(Changes),
    /// The release before.
    Previous,
}

/// What became of a roll.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// When it began.
    pub began: Wall,
    /// How long it took.
    pub took: Millis,
    /// Why it stopped; `None` if all went well.
    pub failure: Option<String>,
    /// What became of each process, in the order they were named.
    pub parts: Vec<Part>,
}

/// What became of one process of a roll.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The process.
    pub pm_id: PmId,
    /// Name and namespace of its app.
    pub app: AppKey,
    /// What became of it.
    pub outcome: Outcome,
    /// The release it is on.
    pub revision: Option<u32>,
    /// Pid before.
    pub old_pid: Option<u32>,
    /// Pid after.
    pub new_pid: Option<u32>,
    /// From the order until the new run served.
    pub ready_after: Option<Millis>,
    /// From there until nothing was left of the old run.
    pub left_after: Option<Millis>,
    /// What became of the old run's connections, if its agent told.
    pub drained: Option<Drained>,
    /// The old run had to be killed: what it still did was cut.
    pub was_killed: bool,
}

/// What became of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A proven successor serves.
    Replaced,
    /// It was restarted: its mode has no other way.
    Restarted,
    /// It did not come to its new run, and why. One that is reloaded is as it
    /// was; one that can only be restarted is not, unless it went back.
    Failed(String),
    /// The roll stopped before it.
    Untouched,
    /// It was replaced, or its restart failed, and it has gone back.
    RolledBack,
    /// It was replaced, and going back failed.
    NotRolledBack(String),
}

/// A roll under way.
#[derive(Debug)]
pub struct Roll {
    began: Now,
    to: RollTo,
    /// Replaces the apps' own `reload.parallel`.
    parallel: Option<u32>,
    order: Vec<PmId>,
    waiting: VecDeque<PmId>,
    /// Those under way, and how.
    running: BTreeMap<PmId, Outcome>,
    /// What those replaced came from.
    before: BTreeMap<PmId, Arc<AppSpec>>,
    /// Apps of all, for those that are gone by the end.
    apps: BTreeMap<PmId, AppKey>,
    /// Those that were to run when the roll began.
    wanted: BTreeSet<PmId>,
    /// Those whose restart failed: they are not what they were.
    half_done: BTreeSet<PmId>,
    done: BTreeMap<PmId, Part>,
    failure: Option<String>,
    is_undoing: bool,
    is_abandoned: bool,
}

impl Supervisor {
    /// Begins a roll.
    pub(super) fn roll(
        &mut self,
        id: RequestId,
        targets: Vec<PmId>,
        to: RollTo,
        parallel: Option<u32>,
        now: Now,
    ) -> Result<(), RequestError> {
        if self.is_ending() {
            return Err(RequestError::ShuttingDown);
        }
        if targets.iter().any(|id| !self.processes.contains_key(id)) {
            return Err(RequestError::UnknownIdReload);
        }
        // Two at once would undo each other.
        let is_rolled = |id: &&PmId| self.rolls.values().any(|roll| roll.order.contains(id));
        if let Some(id) = targets.iter().find(is_rolled) {
            return Err(RequestError::ReloadInProgress(*id));
        }
        let mut order = targets;
        let mut named = BTreeSet::new();
        order.retain(|id| named.insert(*id) || planted!(TargetsDoubled));
        let named = order.iter().filter_map(|id| self.processes.get(id));
        let is_up = |p: &&Process| p.want == Want::Up;
        let roll = Roll {
            apps: named.clone().map(|p| (p.pm_id, p.app_key())).collect(),
            wanted: named.filter(is_up).map(|p| p.pm_id).collect(),
            half_done: BTreeSet::new(),
            began: now,
            to,
            parallel,
            waiting: order.iter().copied().collect(),
            order,
            running: BTreeMap::new(),
            before: BTreeMap::new(),
            done: BTreeMap::new(),
            failure: None,
            is_undoing: false,
            is_abandoned: false,
        };
        self.rolls.insert(id, roll);
        Ok(())
    }

    /// The client of a request is gone; a roll goes on.
    pub(super) fn abandon(&mut self, id: RequestId) {
        match self.rolls.get_mut(&id) {
            Some(roll) => roll.is_abandoned = true,
            None => self.requests.abandon(id),
        }
    }

    /// Returns how many rolls somebody waits for.
    pub(super) fn n_awaited_rolls(&self) -> usize {
        let rolls = self.rolls.values();
        rolls.filter(|roll| !roll.is_abandoned).count()
    }

    /// Takes in what became of processes and begins the next ones.
    pub(super) fn advance_rolls(&mut self, now: Now, out: &mut Vec<Action>) {
        loop {
            for (roll, pm_id, outcome) in self.requests.take_parts() {
                self.settle_part(roll, pm_id, outcome);
            }
            let ids: Vec<RequestId> = self.rolls.keys().copied().collect();
            let begun: usize = ids.into_iter().map(|id| self.advance(id, now, out)).sum();
            if begun == 0 {
                return;
            }
        }
    }

    fn settle_part(
        &mut self,
        id: RequestId,
        pm_id: PmId,
        outcome: Result<ProcessView, RequestError>,
    ) {
        let Some(roll) = self.rolls.get_mut(&id) else {
            return;
        };
        let Some(way) = roll.running.remove(&pm_id) else {
            return;
        };
        let process = self.processes.get(&pm_id);
        // A run that is only waited for no longer counts as online: that is no
        // proof.
        let outcome = match (outcome, process.and_then(unproven)) {
            (Ok(_), None) => Ok(()),
            (Ok(_), Some(reason)) => {
                roll.half_done.insert(pm_id);
                Err(reason)
            }
            (Err(error), _) => {
                if way == Outcome::Restarted && !matches!(error, RequestError::Superseded { .. }) {
                    roll.half_done.insert(pm_id);
                }
                Err(error.to_string())
            }
        };
        let outcome = match (outcome, way) {
            (Ok(()), way) => way,
            (Err(reason), Outcome::RolledBack) => Outcome::NotRolledBack(reason),
            (Err(reason), _) => {
                roll.failure.get_or_insert_with(|| reason.clone());
                Outcome::Failed(reason)
            }
        };
        roll.note(pm_id, process, outcome);
    }

    /// Begins what may begin; ends the roll if nothing is left. Returns how
    /// many processes were begun.
    fn advance(&mut self, id: RequestId, now: Now, out: &mut Vec<Action>) -> usize {
        let Some(mut roll) = self.rolls.remove(&id) else {
            return 0;
        };
        if self.is_ending() {
            roll.failure
                .get_or_insert_with(|| RequestError::ShuttingDown.to_string());
        }
        let goes_on = planted!(FailureOverlooked) && !roll.waiting.is_empty();
        if roll.failure.is_some() && !roll.is_undoing && !goes_on {
            self.stop_roll(&mut roll);
        }
        let mut n_begun = 0;
        while let Some(pm_id) = self.next_of(&mut roll) {
            self.begin_part(id, &mut roll, pm_id, now, out);
            n_begun += 1;
        }
        if roll.waiting.is_empty() && roll.running.is_empty() {
            self.end_roll(id, roll, now, out);
        } else {
            self.rolls.insert(id, roll);
        }
        n_begun
    }

    /// Leaves what was not reached, and lines up what is to go back.
    fn stop_roll(&self, roll: &mut Roll) {
        for pm_id in std::mem::take(&mut roll.waiting) {
            roll.note(pm_id, self.processes.get(&pm_id), Outcome::Untouched);
        }
        // Those still under way are judged by themselves first.
        if !roll.running.is_empty() {
            return;
        }
        roll.is_undoing = true;
        let is_ending = self.is_ending() && !planted!(EndGoesBack);
        if is_ending || planted!(NobodyGoesBack) {
            return;
        }
        let goes_back = |part: &&Part| {
            let process = self.processes.get(&part.pm_id);
            process.is_some_and(|p| p.spec.reload.on_failure == OnFailure::Rollback)
                && match part.outcome {
                    Outcome::Replaced | Outcome::Restarted => true,
                    Outcome::Failed(_) => roll.half_done.contains(&part.pm_id),
                    Outcome::Untouched | Outcome::RolledBack | Outcome::NotRolledBack(_) => false,
                }
        };
        roll.waiting = roll
            .done
            .values()
            .filter(goes_back)
            .map(|part| part.pm_id)
            .collect();
    }

    /// Takes the next process that may begin.
    fn next_of(&self, roll: &mut Roll) -> Option<PmId> {
        let app_of = |pm_id: &PmId| self.processes.get(pm_id).map(Process::app_key);
        let at = roll.waiting.iter().position(|pm_id| {
            let Some(process) = self.processes.get(pm_id) else {
                return true;
            };
            if planted!(ParallelOverlooked) {
                return true;
            }
            let limit = roll.parallel.unwrap_or(process.spec.reload.parallel).max(1);
            let app = process.app_key();
            let n_under_way = roll
                .running
                .keys()
                .filter(|other| app_of(other).as_ref() == Some(&app))
                .filter(|other| !self.has_taken_over(**other))
                .count();
            n_under_way < limit as usize
        })?;
        roll.waiting.remove(at)
    }

    /// True if the successor serves, and only the predecessor's end is awaited.
    fn has_taken_over(&self, pm_id: PmId) -> bool {
        let process = self.processes.get(&pm_id);
        let replacement = process.and_then(|p| p.replacement.as_ref());
        replacement.is_some_and(|replacement| replacement.took_over.is_some())
    }

    fn begin_part(
        &mut self,
        id: RequestId,
        roll: &mut Roll,
        pm_id: PmId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let begun = self.begin_replacing(id, roll, pm_id, now, out);
        match begun {
            Ok(way) => drop(roll.running.insert(pm_id, way)),
            Err(error) => {
                let reason = error.to_string();
                let outcome = match roll.is_undoing {
                    true => Outcome::NotRolledBack(reason),
                    false => {
                        roll.failure.get_or_insert_with(|| reason.clone());
                        Outcome::Failed(reason)
                    }
                };
                roll.note(pm_id, self.processes.get(&pm_id), outcome);
                if !roll.is_undoing {
                    self.stop_roll(roll);
                }
            }
        }
    }

    fn begin_replacing(
        &mut self,
        id: RequestId,
        roll: &mut Roll,
        pm_id: PmId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<Outcome, RequestError> {
        let process = self.wanted(pm_id).ok_or(RequestError::UnknownIdReload)?;
        let was_up = roll.is_undoing || roll.wanted.contains(&pm_id);
        if process.want != Want::Up && was_up && !planted!(StoppedAreRolled) {
            return Err(RequestError::Superseded {
                id: pm_id,
                what: Goal::Reloaded.verb(),
                by: Goal::Stopped.verb(),
            });
        }
        if process.second.is_some() {
            return Err(RequestError::ReloadInProgress(pm_id));
        }
        let defaults = &self.settings.defaults;
        let spec = match (roll.is_undoing, &roll.to) {
            (true, _) => roll.before.get(&pm_id).cloned(),
            (false, RollTo::Changed(changes)) => {
                Some(requests::changed(&process.spec, changes, defaults)?)
            }
            (false, RollTo::Previous) => revision::back(process, defaults),
        };
        let spec = spec.ok_or(RequestError::NoPrevious(pm_id))?;
        if !roll.is_undoing {
            let known = process.revision.as_ref();
            let before = known.and_then(|known| revision::pinned(known, defaults));
            // Where it is unknown where it ran, going back is its app as it was.
            let before = before.unwrap_or_else(|| Arc::clone(&process.spec));
            roll.before.insert(pm_id, before);
        }
        let possible = reload::is_possible(process);
        let (goal, way) = match possible {
            true => (Goal::Reloaded, Outcome::Replaced),
            false => (Goal::Restarted, Outcome::Restarted),
        };
        let request = self.requests.open_part(id, pm_id);
        self.with_process(pm_id, now, out, |p, ctx| {
            p.replacement = None;
            if possible {
                p.waiters.push(Waiter { request, goal });
                reload::begin(p, spec, ctx);
            } else {
                p.spec = spec;
                requests::renew_by_restart(p, ctx);
                p.waiters.push(Waiter { request, goal });
            }
        });
        Ok(match roll.is_undoing {
            true => Outcome::RolledBack,
            false => way,
        })
    }

    fn end_roll(&mut self, id: RequestId, mut roll: Roll, now: Now, out: &mut Vec<Action>) {
        let parts = roll.order.iter().filter_map(|id| roll.done.remove(id));
        let receipt = Receipt {
            began: roll.began.wall,
            took: now.mono.since(roll.began.mono),
            failure: roll.failure,
            parts: parts.collect(),
        };
        out.push(Action::Record(Record::Reload(Box::new(receipt.clone()))));
        if !roll.is_abandoned || planted!(AbandonedRollAnswered) {
            out.push(Action::Reply(id, Ok(Reply::Rolled(Box::new(receipt)))));
        }
    }
}

impl Roll {
    /// Books what became of a process.
    fn note(&mut self, pm_id: PmId, process: Option<&Process>, outcome: Outcome) {
        let app = self.apps.get(&pm_id).cloned();
        let app = app.unwrap_or_else(|| AppKey {
            namespace: String::new(),
            name: String::new(),
        });
        self.done.insert(pm_id, part(pm_id, app, process, outcome));
    }
}

/// Returns what a run that serves has not shown.
fn unproven(p: &Process) -> Option<String> {
    let serving = p.serving.as_ref().filter(|_| !planted!(SilenceIsReady));
    let run = serving.filter(|run| run.is_online())?;
    let says_too_little = run.spec.ready.wait_ready && !run.said.ready;
    let is_owing = says_too_little || run.health.owes(&run.spec.probes).is_some();
    is_owing.then(|| format!("{}:{} {}", p.spec.name, p.pm_id, lifecycle::missing(run)))
}

fn part(pm_id: PmId, app: AppKey, process: Option<&Process>, outcome: Outcome) -> Part {
    let is_begun = outcome != Outcome::Untouched;
    let replacement = process.and_then(|p| p.replacement.as_ref());
    let replacement = replacement.filter(|_| is_begun);
    let span = |from: Option<Mono>, to: Option<Mono>| Some(to?.since(from?));
    let began = replacement.map(|r| r.began);
    let took_over = replacement.and_then(|r| r.took_over);
    let serving = process.and_then(|p| p.serving.as_ref());
    Part {
        pm_id,
        app,
        outcome,
        revision: process.and_then(|p| Some(p.revision.as_ref()?.number)),
        old_pid: replacement.and_then(|r| r.old_pid),
        new_pid: serving.and_then(|run| run.pid),
        ready_after: span(began, took_over),
        left_after: span(took_over, replacement.and_then(|r| r.ended)),
        drained: replacement.and_then(|r| r.drained),
        was_killed: replacement.is_some_and(|r| r.was_killed),
    }
}
