//! Rules about who is who: runs, slots, numbers, and what is known of them.

use super::ensure;
use crate::model::{Step, run_of};
use musher_core::id::PmId;
use musher_core::supervisor::process::{Rest, Want};
use musher_core::supervisor::run::{Phase, Rung};
use musher_core::supervisor::{Action, AppKey, Event, Reply, Request};
use musher_core::view::Status;
use std::collections::{BTreeMap, BTreeSet};

/// Every process whose end was not told belongs to exactly one run of its slot.
pub(crate) fn every_live_process_is_known(s: &Step<'_>) -> Result<(), String> {
    for (run, fake) in s.kernel.fakes.iter().filter(|(_, fake)| !fake.end_told) {
        let n = s
            .after
            .values()
            .flat_map(|p| p.runs().map(move |r| (p.pm_id, r.id)))
            .filter(|known| *known == (fake.pm_id, *run))
            .count();
        ensure(n == 1, || format!("run {run} is known {n} times"))?;
        let owner = s.state.owner(*run);
        ensure(owner == Some(fake.pm_id), || {
            format!("run {run}: {owner:?}")
        })?;
    }
    Ok(())
}

/// A slot never has more than two processes whose end was not told.
pub(crate) fn a_slot_has_at_most_two_runs(s: &Step<'_>) -> Result<(), String> {
    let mut counts: BTreeMap<PmId, u32> = BTreeMap::new();
    for fake in s.kernel.fakes.values().filter(|fake| !fake.end_told) {
        *counts.entry(fake.pm_id).or_default() += 1;
    }
    ensure(counts.values().all(|n| *n <= 2), || format!("{counts:?}"))
}

/// The phase of a run never falls back.
pub(crate) fn phases_only_go_forward(s: &Step<'_>) -> Result<(), String> {
    for run in s.after.values().flat_map(|p| p.runs()) {
        let before = s.model.runs.get(&run.id).map_or(0, |seen| seen.rank);
        ensure(run.phase.rank() >= before, || format!("run {}", run.id))?;
    }
    Ok(())
}

/// A run is forgotten exactly once, in the step in which it leaves its slot.
pub(crate) fn ended_runs_are_forgotten_once(s: &Step<'_>) -> Result<(), String> {
    let present: BTreeSet<_> = s
        .after
        .values()
        .flat_map(|p| p.runs())
        .map(|r| r.id)
        .collect();
    for (run, seen) in &s.model.runs {
        let expected = u32::from(!present.contains(run));
        ensure(seen.n_forgotten == expected, || {
            format!("run {run} was forgotten {} times", seen.n_forgotten)
        })?;
    }
    Ok(())
}

/// A run is known by what it said itself, whatever the others of its slot say.
pub(crate) fn words_are_their_speakers(s: &Step<'_>) -> Result<(), String> {
    for run in s.after.values().flat_map(|p| p.runs()) {
        let said = s.model.runs.get(&run.id).map(|seen| &seen.said);
        ensure(said == Some(&run.said), || {
            format!("run {}: {:?}", run.id, run.said)
        })?;
    }
    Ok(())
}

/// An event of a run that is over or unknown orders nothing and changes nothing.
pub(crate) fn a_stale_event_changes_nothing(s: &Step<'_>) -> Result<(), String> {
    if run_of(s.event).is_none() || s.owner_before.is_some() {
        return Ok(());
    }
    ensure(s.actions.is_empty() && s.before == s.after, || {
        format!("{:?} caused {:?}", s.event, s.actions)
    })
}

/// Slot numbers count up from 0 and begin again only when no slot is left.
pub(crate) fn ids_ascend(s: &Step<'_>) -> Result<(), String> {
    let fresh = s.after.keys().filter(|id| !s.before.contains_key(id));
    for (expected, id) in (s.model.next_pm_id..).zip(fresh) {
        ensure(id.0 == expected, || format!("{id} instead of {expected}"))?;
    }
    Ok(())
}

/// An instance number is unique within its name and the smallest free one.
pub(crate) fn instances_are_the_smallest_free(s: &Step<'_>) -> Result<(), String> {
    let mut used: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for p in s.before.values() {
        used.entry(&p.spec.name).or_default().insert(p.instance);
    }
    for (id, p) in s.after.iter().filter(|(id, _)| !s.before.contains_key(id)) {
        let taken = used.entry(&p.spec.name).or_default();
        let free = (0..).find(|n| !taken.contains(n));
        ensure(free == Some(p.instance), || format!("{id}: {}", p.instance))?;
        taken.insert(p.instance);
    }
    Ok(())
}

/// What is stored is what is, at all times.
pub(crate) fn changes_are_persisted(s: &Step<'_>) -> Result<(), String> {
    let stored: BTreeSet<_> = s.model.store.keys().collect();
    let present: BTreeSet<_> = s.after.keys().collect();
    ensure(stored == present, || format!("{stored:?} for {present:?}"))?;
    for (id, p) in s.after {
        let is_same = s.model.store.get(id).is_some_and(|stored| stored.is(p));
        ensure(is_same, || format!("slot {id} changed unseen"))?;
    }
    Ok(())
}

/// The announced slots of an app are those that run or are about to.
pub(crate) fn slots_are_those_in_use(s: &Step<'_>) -> Result<(), String> {
    // Whatever changes is at least persisted.
    if s.actions.is_empty() {
        return Ok(());
    }
    let mut in_use: BTreeMap<AppKey, Vec<u32>> = BTreeMap::new();
    for p in s.after.values() {
        let is_meant = p.want == Want::Up && matches!(p.rest, Rest::Due | Rest::Waiting { .. });
        if is_meant || p.runs().next().is_some() {
            in_use.entry(p.app_key()).or_default().push(p.instance);
        }
    }
    for live in in_use.values_mut() {
        live.sort_unstable();
    }
    let announced: BTreeMap<_, _> = s
        .model
        .slots
        .iter()
        .filter(|(_, live)| !live.is_empty())
        .map(|(app, live)| (app.clone(), live.clone()))
        .collect();
    ensure(announced == in_use, || {
        format!("{announced:?} for {in_use:?}")
    })
}

/// A resting status is never shown while a process of the slot lives, except
/// of one that survived SIGKILL.
pub(crate) fn stopped_means_nothing_lives(s: &Step<'_>) -> Result<(), String> {
    for p in s.after.values() {
        let rests = matches!(
            p.status(),
            Status::Stopped | Status::WaitingRestart | Status::Errored
        );
        let is_stuck = p
            .runs()
            .any(|r| matches!(&r.phase, Phase::Stopping(stopping) if stopping.rung == Rung::Stuck));
        let untold = |fake: &&crate::kernel::Fake| fake.pm_id == p.pm_id && !fake.end_told;
        let lives = s.kernel.fakes.values().any(|fake| untold(&fake));
        ensure(!rests || is_stuck || !lives, || format!("slot {}", p.pm_id))?;
    }
    Ok(())
}

/// After the answer to a stop or delete nothing of the process lives.
pub(crate) fn an_answered_stop_means_nothing_lives(s: &Step<'_>) -> Result<(), String> {
    for action in s.actions {
        let Action::Reply(id, Ok(Reply::Process(view))) = action else {
            continue;
        };
        let asked = s.model.asked.get(id).map(|asked| &asked.request);
        if let Some(Request::Stop(_) | Request::Delete(_)) = asked {
            let lives = s.kernel.lives(view.pm_id);
            ensure(!lives, || format!("slot {} ({:?})", view.pm_id, s.event))?;
        }
    }
    let is_exit = s.actions.contains(&Action::Exit) && !matches!(s.event, Event::Deadline);
    let survivor = s.kernel.fakes.values().find(|fake| !fake.end_told);
    ensure(!is_exit || survivor.is_none(), || format!("{survivor:?}"))
}
