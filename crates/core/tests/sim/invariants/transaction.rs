//! Rules about probes, drains, releases and the history.

use super::ensure;
use crate::model::{Step, run_of};
use musher_core::app::probe::ProbeKind;
use musher_core::id::{Incarnation, PmId};
use musher_core::supervisor::process::{Second, Want};
use musher_core::supervisor::run::{Phase, Run, Rung};
use musher_core::supervisor::{Action, Event, Process, Record, Request};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A drain is for a run whose work another one goes on with: the run that took
/// over from it, or other processes of a scaled down app.
pub(crate) fn a_drain_is_covered(s: &Step<'_>) -> Result<(), String> {
    for action in s.actions {
        let Action::Drain { run, .. } = action else {
            continue;
        };
        let owner = s.model.runs.get(run).map(|seen| seen.pm_id);
        let before = owner.and_then(|id| s.before.get(&id));
        let known = before.and_then(|p| p.runs().find(|known| known.id == *run));
        // A daemon that took over says again what was begun.
        if known.is_some_and(Run::is_stopping) {
            continue;
        }
        let is_covered = match s.event {
            Event::Request(_, Request::Retire(id)) if Some(*id) == owner => {
                let app = s.before.get(id).map(Process::app_key);
                s.before.values().any(|other| {
                    other.pm_id != *id
                        && Some(other.app_key()) == app
                        && other.want == Want::Up
                        && other.serving.as_ref().is_some_and(Run::is_online)
                })
            }
            _ => {
                let p = owner.and_then(|id| s.after.get(&id));
                let serving = p.and_then(|p| p.serving.as_ref());
                serving.is_some_and(|heir| heir.id != *run && heir.is_online())
            }
        };
        ensure(is_covered, || format!("run {run}"))?;
    }
    Ok(())
}

/// A drain is over as soon as it is done, at its limit, or when somebody wants
/// the process to stop: no later.
pub(crate) fn a_drain_ends_in_time(s: &Step<'_>) -> Result<(), String> {
    let drains = s
        .after
        .values()
        .flat_map(|p| p.runs().map(move |run| (p, run)));
    for (p, run) in drains {
        let is_draining = matches!(&run.phase,
            Phase::Stopping(stopping) if matches!(stopping.rung, Rung::Draining { .. }));
        if !is_draining {
            continue;
        }
        let Some(drain) = s.model.runs.get(&run.id).and_then(|seen| seen.drain) else {
            return Err(format!("run {} was not asked to drain", run.id));
        };
        let is_late = *s.event == Event::Deadline && drain.ends_at <= s.now.mono;
        let is_hastened = match s.event {
            Event::Request(_, Request::Stop(id) | Request::Delete(id)) => *id == p.pm_id,
            Event::Shutdown => true,
            Event::Exited { run: ended, .. } => *ended == run.id,
            _ => false,
        };
        ensure(!drain.is_done && !is_late && !is_hastened, || {
            format!("run {}", run.id)
        })?;
        let is_heard = s.deadline_after.is_some_and(|at| at <= drain.ends_at);
        ensure(is_heard, || format!("run {} has no deadline", run.id))?;
    }
    Ok(())
}

/// Whatever a probe asks next is awaited by time or by its answer.
pub(crate) fn a_probe_goes_on(s: &Step<'_>) -> Result<(), String> {
    for run in s.after.values().flat_map(Process::runs) {
        let Some(seen) = s.model.runs.get(&run.id) else {
            continue;
        };
        if !run.is_executed() || seen.has_died || seen.is_over || seen.probed_from.is_none() {
            continue;
        }
        let kinds = match seen.has_started {
            true => [ProbeKind::Readiness, ProbeKind::Liveness].as_slice(),
            false => [ProbeKind::Startup].as_slice(),
        };
        for kind in kinds {
            let Some(probe) = run.spec.probes.get(*kind) else {
                continue;
            };
            let told = &seen.told[*kind as usize];
            let from = seen.probed_from.map(|from| from + probe.initial_delay);
            let due = told.answered_at.map_or(from, |at| Some(at + probe.period));
            let is_heard = s.deadline_after.is_some() && s.deadline_after <= due;
            ensure(told.is_asked || is_heard, || {
                format!("{} of run {}", kind.name(), run.id)
            })?;
        }
    }
    Ok(())
}

/// A run that serves gets connections unless one of its probes says no.
pub(crate) fn traffic_follows_health(s: &Step<'_>) -> Result<(), String> {
    let Event::Probed { run, .. } = s.event else {
        return Ok(());
    };
    let runs = s.after.values().filter_map(|p| p.serving.as_ref());
    for run in runs.filter(|serving| serving.id == *run && serving.is_online()) {
        let Some(seen) = s.model.runs.get(&run.id) else {
            continue;
        };
        if seen.has_died {
            continue;
        }
        ensure(seen.gets_traffic != seen.is_failing(), || {
            format!("run {}: {}", run.id, seen.gets_traffic)
        })?;
    }
    Ok(())
}

/// What fails its liveness probe is replaced, unless somebody is busy with its
/// slot or the daemon ends.
pub(crate) fn a_failing_run_is_replaced(s: &Step<'_>) -> Result<(), String> {
    let Event::Probed { run, kind, outcome } = s.event else {
        return Ok(());
    };
    let owner = s.owner_before.and_then(|id| s.before.get(&id));
    let Some(before) = owner.filter(|_| *kind == ProbeKind::Liveness && outcome.is_err()) else {
        return Ok(());
    };
    let is_it = before
        .serving
        .as_ref()
        .is_some_and(|serving| serving.id == *run && serving.is_executed());
    let seen = s.model.runs.get(run);
    let is_failing = seen.is_some_and(|seen| seen.told[*kind as usize].is_failing);
    let is_dead = seen.is_some_and(|seen| seen.has_died);
    let is_busy = before.second.is_some() || !before.waiters.is_empty();
    if !is_it || !is_failing || is_dead || is_busy || s.model.is_ending {
        return Ok(());
    }
    let is_replaced = s.after.get(&before.pm_id).is_some_and(|after| {
        matches!(after.second, Some(Second::Successor { .. }))
            || after.serving.as_ref().is_none_or(Run::is_stopping)
    });
    ensure(is_replaced, || format!("run {run}"))
}

/// The end of a process is put into the history once, when it is told.
pub(crate) fn an_end_is_recorded_once(s: &Step<'_>) -> Result<(), String> {
    let recorded: Vec<Incarnation> = s
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Record(Record::Exit(exit)) => Some(exit.run),
            _ => None,
        })
        .collect();
    let expected: Vec<Incarnation> = match s.event {
        Event::Exited { run, .. } if s.owner_before.is_some() => vec![*run],
        _ => Vec::new(),
    };
    ensure(recorded == expected, || {
        format!("{recorded:?} instead of {expected:?}")
    })?;
    let again = s.model.runs.values().find(|seen| seen.n_exit_records > 1);
    ensure(again.is_none(), || format!("{again:?}"))
}

/// Numbers of releases only grow, by one, and what served before is the
/// release before.
pub(crate) fn releases_only_grow(s: &Step<'_>) -> Result<(), String> {
    for (id, after) in s.after {
        let Some(before) = s.before.get(id) else {
            continue;
        };
        let number = |p: &Process| p.revision.as_ref().map_or(0, |r| r.number);
        let (was, is) = (number(before), number(after));
        ensure(is == was || is == was + 1, || {
            format!("slot {id}: {was}, then {is}")
        })?;
        let expected = match is == was {
            true => &before.previous,
            false => &before.revision,
        };
        let same = match (expected, &after.previous) {
            (Some(a), Some(b)) => a.number == b.number && a.place == b.place,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        ensure(same, || format!("slot {id}: {:?}", after.previous))?;
    }
    Ok(())
}

/// The release in force is the one that serves, where that is known.
pub(crate) fn the_release_is_what_serves(s: &Step<'_>) -> Result<(), String> {
    for p in s.after.values() {
        let serving = p.serving.as_ref().filter(|run| !run.is_stopping());
        let Some((run, place)) = serving.and_then(|run| Some((run, run.place.as_ref()?))) else {
            continue;
        };
        let is_it = p.revision.as_ref().is_some_and(|revision| {
            let same = Arc::ptr_eq(&revision.spec, &run.spec) || revision.spec == run.spec;
            same && revision.place.as_ref() == Some(place)
        });
        ensure(is_it, || format!("slot {}", p.pm_id))?;
    }
    Ok(())
}

/// A dead run is neither asked nor made the one that serves, nor told to be
/// online.
pub(crate) fn the_dead_are_left_alone(s: &Step<'_>) -> Result<(), String> {
    let dead: BTreeSet<Incarnation> = s
        .model
        .runs
        .iter()
        .filter(|(_, seen)| seen.has_died)
        .map(|(run, _)| *run)
        .collect();
    for (id, after) in s.after {
        let Some(serving) = after.serving.as_ref().filter(|run| dead.contains(&run.id)) else {
            continue;
        };
        let before = s.before.get(id).and_then(|p| p.serving.as_ref());
        let was_serving = before.is_some_and(|run| run.id == serving.id);
        // A dead predecessor may leave its place to a dying successor.
        let is_end = matches!(s.event, Event::Exited { .. }) && run_of(s.event) != Some(serving.id);
        ensure(was_serving || is_end, || {
            format!("run {} serves", serving.id)
        })?;
    }
    Ok(())
}

/// What waits as a part of a roll waits once, and for a roll that is open.
pub(crate) fn a_part_belongs_to_one_open_roll(s: &Step<'_>) -> Result<(), String> {
    let parts: Vec<(PmId, u64)> = s
        .after
        .values()
        .flat_map(|p| {
            p.waiters
                .iter()
                .map(move |waiter| (p.pm_id, waiter.request.0))
        })
        .filter(|(_, request)| *request >= 1 << 63)
        .collect();
    let distinct: BTreeSet<u64> = parts.iter().map(|(_, request)| *request).collect();
    ensure(distinct.len() == parts.len(), || format!("{parts:?}"))?;
    let is_orphan = !parts.is_empty() && s.model.rolls.n_open() == 0;
    ensure(!is_orphan, || format!("{parts:?} of no roll"))
}
