//! Rolls as their clients see them: what they named, what they began, and
//! whether their receipts are true.

use crate::model::Processes;
use musher_core::app::{OnFailure, Place};
use musher_core::id::{Incarnation, PmId, RequestId};
use musher_core::supervisor::process::{Goal, Want};
use musher_core::supervisor::run::Run;
use musher_core::supervisor::{AppKey, Outcome, Process, Receipt, Reply, RequestError};
use musher_core::time::{Now, Wall};
use std::collections::{BTreeMap, BTreeSet};

/// Parts of rolls have numbers of their own.
const FIRST_PART: u64 = 1 << 63;

type Fault = (&'static str, String);

/// One roll under way.
#[derive(Debug)]
struct Roll {
    id: RequestId,
    began: Wall,
    targets: Vec<PmId>,
    /// How many of each app may be between old and new run.
    limits: BTreeMap<AppKey, u32>,
    /// What served when it began.
    served: BTreeMap<PmId, Option<Incarnation>>,
    places: BTreeMap<PmId, Option<Place>>,
    begun: BTreeSet<PmId>,
    has_failed: bool,
    /// Slots in which something else happened meanwhile.
    moved: BTreeSet<PmId>,
    /// Those that were to run when it began.
    wanted: BTreeSet<PmId>,
}

/// All rolls under way.
#[derive(Debug, Default)]
pub(crate) struct Rolls {
    open: Vec<Roll>,
    ended: Vec<(RequestId, Receipt)>,
}

/// Returns the part of a roll that waits for a slot.
pub(crate) fn part_of(p: &Process) -> Option<RequestId> {
    let mut requests = p.waiters.iter().map(|waiter| waiter.request);
    requests.find(|request| request.0 >= FIRST_PART)
}

fn is_between(p: &Process) -> bool {
    let is_part = part_of(p).is_some();
    let took_over = p.replacement.as_ref().and_then(|r| r.took_over);
    is_part && took_over.is_none()
}

impl Rolls {
    pub(crate) fn begin(
        &mut self,
        id: RequestId,
        targets: &[PmId],
        parallel: Option<u32>,
        before: &Processes,
        now: Now,
    ) {
        let mut distinct = BTreeSet::new();
        let targets: Vec<PmId> = targets.to_vec();
        let targets = targets.into_iter().filter(|id| distinct.insert(*id));
        let slots = before.iter();
        let mut limits = BTreeMap::new();
        for p in before.values() {
            let limit: &mut u32 = limits.entry(p.app_key()).or_default();
            *limit = (*limit).max(parallel.unwrap_or(p.spec.reload.parallel));
        }
        self.open.push(Roll {
            id,
            began: now.wall,
            targets: targets.collect(),
            limits,
            served: slots
                .clone()
                .map(|(id, p)| (*id, p.serving.as_ref().map(|run| run.id)))
                .collect(),
            places: slots
                .map(|(id, p)| (*id, p.serving.as_ref().and_then(|run| run.place.clone())))
                .collect(),
            begun: BTreeSet::new(),
            has_failed: false,
            moved: before
                .values()
                .filter(|p| p.second.is_some() || p.runs().any(Run::is_stopping))
                .map(|p| p.pm_id)
                .collect(),
            wanted: before
                .values()
                .filter(|p| p.want == Want::Up)
                .map(|p| p.pm_id)
                .collect(),
        });
    }

    /// Something else than a roll happens in a slot.
    pub(crate) fn moves(&mut self, id: PmId) {
        for roll in &mut self.open {
            roll.moved.insert(id);
        }
    }

    pub(crate) fn n_open(&self) -> usize {
        self.open.len()
    }

    /// A request was answered.
    pub(crate) fn answered(
        &mut self,
        id: RequestId,
        reply: &Result<Reply, RequestError>,
    ) -> Result<(), Fault> {
        match reply {
            Err(_) => self.open.retain(|roll| roll.id != id),
            Ok(Reply::Rolled(receipt)) => {
                let is_kept = self.ended.contains(&(id, Receipt::clone(receipt)));
                if !is_kept {
                    return Err(("an_answer_is_what_the_history_keeps", format!("{id}")));
                }
            }
            Ok(Reply::Processes(_) | Reply::Process(_) | Reply::Done) => {}
        }
        Ok(())
    }

    /// A roll is over.
    pub(crate) fn end(
        &mut self,
        receipt: &Receipt,
        after: &Processes,
        is_ending: bool,
    ) -> Result<(), Fault> {
        let named: Vec<PmId> = receipt.parts.iter().map(|part| part.pm_id).collect();
        let is_it = |roll: &Roll| roll.began == receipt.began && roll.targets == named;
        let Some(at) = self.open.iter().position(is_it) else {
            let rule = "a_receipt_names_each_target_once";
            return Err((rule, format!("{named:?}")));
        };
        let roll = self.open.remove(at);
        self.ended.push((roll.id, receipt.clone()));
        if self.ended.len() > 4 {
            self.ended.remove(0);
        }
        for part in &receipt.parts {
            let what = || format!("slot {}: {:?}", part.pm_id, part.outcome);
            check(&roll, receipt, part, after, is_ending).map_err(|rule| (rule, what()))?;
        }
        Ok(())
    }

    /// Keeps what the next step is compared with.
    pub(crate) fn remember(&mut self, after: &Processes) {
        for roll in &mut self.open {
            for id in &roll.targets {
                if after.get(id).is_some_and(|p| part_of(p).is_some()) {
                    roll.begun.insert(*id);
                }
            }
        }
    }

    /// Checks what rolls begin in a step.
    pub(crate) fn watch(
        &mut self,
        before: &Processes,
        after: &Processes,
        is_ending: bool,
    ) -> Result<(), Fault> {
        for roll in &mut self.open {
            roll.watch(before, after, is_ending)?;
        }
        Ok(())
    }
}

impl Roll {
    fn watch(
        &mut self,
        before: &Processes,
        after: &Processes,
        is_ending: bool,
    ) -> Result<(), Fault> {
        for id in &self.targets {
            let was = before.get(id).filter(|p| part_of(p).is_some());
            let is = after.get(id);
            if let Some(was) = was
                && was
                    .waiters
                    .iter()
                    .any(|waiter| waiter.goal == Goal::Reloaded)
            {
                let serving = |p: &Process| p.serving.as_ref().map(|run| run.id);
                let is_settled = is.is_none_or(|p| part_of(p).is_none());
                let is_same = is.is_none_or(|p| serving(p) == serving(was));
                let had_taken_over = was.replacement.as_ref().and_then(|r| r.took_over);
                self.has_failed |= is_settled && is_same && had_taken_over.is_none();
            }
        }
        let begins = |id: &&PmId| {
            let now = after.get(id).and_then(part_of);
            now.is_some() && now != before.get(id).and_then(part_of)
        };
        for id in self.targets.iter().filter(begins) {
            let was_down = before.get(id).is_some_and(|p| p.want == Want::Down);
            let was_stopped = was_down && (self.wanted.contains(id) || self.begun.contains(id));
            if was_stopped {
                let rule = "a_roll_starts_nothing_somebody_stopped";
                return Err((rule, format!("slot {id}")));
            }
            if is_ending {
                return Err(("an_end_begins_no_part", format!("slot {id}")));
            }
            if self.has_failed && !self.begun.contains(id) {
                let rule = "a_failure_stops_the_roll";
                return Err((rule, format!("slot {id} is begun")));
            }
        }
        let mut counts: BTreeMap<AppKey, u32> = BTreeMap::new();
        for p in self.targets.iter().filter_map(|id| after.get(id)) {
            *counts.entry(p.app_key()).or_default() += u32::from(is_between(p));
        }
        let limit = |app| self.limits.get(app).copied().unwrap_or(1);
        match counts.iter().find(|(app, n)| **n > limit(*app)) {
            Some(found) => Err(("no_more_than_parallel_at_once", format!("{found:?}"))),
            None => Ok(()),
        }
    }
}

/// Returns the rule that an outcome of a receipt breaks.
fn check(
    roll: &Roll,
    receipt: &Receipt,
    part: &musher_core::supervisor::Part,
    after: &Processes,
    is_ending: bool,
) -> Result<(), &'static str> {
    let ensure = |holds: bool, rule| if holds { Ok(()) } else { Err(rule) };
    let id = part.pm_id;
    let p = after.get(&id);
    let serving = p.and_then(|p| p.serving.as_ref());
    let is_left_alone = !roll.moved.contains(&id);
    let served = roll.served.get(&id).copied().flatten();
    match &part.outcome {
        Outcome::Untouched => {
            ensure(receipt.failure.is_some(), "a_failure_is_said")?;
            let is_same = serving.map(|run| run.id) == served;
            ensure(
                p.is_none() || is_same || !is_left_alone || roll.begun.contains(&id),
                "the_untouched_are_as_they_were",
            )?;
            ensure(!roll.begun.contains(&id), "the_untouched_were_not_begun")?;
        }
        Outcome::Replaced | Outcome::Restarted => {
            let is_new = serving.is_none_or(|run| Some(run.id) != served);
            ensure(is_new, "the_replaced_have_another_run")?;
            let owes = |run: &Run| run.spec.ready.wait_ready && !run.said.ready;
            let is_silent = serving.is_some_and(|run| run.is_online() && owes(run));
            ensure(
                !is_silent || !is_left_alone,
                "the_replaced_said_what_they_owe",
            )?;
            let goes_back = p.is_some_and(|p| p.spec.reload.on_failure == OnFailure::Rollback);
            let may_stay = receipt.failure.is_none() || !goes_back || is_ending;
            ensure(may_stay, "all_go_back_or_say_so")?;
        }
        Outcome::RolledBack => {
            ensure(receipt.failure.is_some(), "a_failure_is_said")?;
            let is_new = serving.is_none_or(|run| Some(run.id) != served);
            ensure(is_new, "the_replaced_have_another_run")?;
            let place = serving.and_then(|run| run.place.as_ref());
            let was = roll.places.get(&id).and_then(Option::as_ref);
            let is_back = place.is_none() || was.is_none() || place == was;
            ensure(is_back || !is_left_alone, "going_back_leads_back")?;
        }
        Outcome::Failed(_) | Outcome::NotRolledBack(_) => {
            ensure(receipt.failure.is_some(), "a_failure_is_said")?;
        }
    }
    Ok(())
}
