//! Rules about readiness, spawning and the replacement of a run.

use super::ensure;
use crate::model::{Seen, Step, run_of};
use musher_core::app::ExecMode;
use musher_core::supervisor::lifecycle::WORKER_ONLINE_BOUND;
use musher_core::supervisor::process::Second;
use musher_core::supervisor::reload::proof_patience;
use musher_core::supervisor::run::Run;
use musher_core::supervisor::{Action, Event, Process};
use std::sync::Arc;

/// A serving run is online only if it said what its app declares, or the
/// patience for it is over.
pub(crate) fn online_means_ready(s: &Step<'_>) -> Result<(), String> {
    for p in s.after.values() {
        let Some(run) = p.serving.as_ref().filter(|run| run.is_online()) else {
            continue;
        };
        let Some(seen) = s.model.runs.get(&run.id) else {
            return Err(format!("run {} was never spawned", run.id));
        };
        let before = s.before.get(&p.pm_id).and_then(|p| p.serving.as_ref());
        let was_online = before.is_some_and(|was| was.id == run.id && was.is_online());
        if seen.is_inherited || was_online {
            continue;
        }
        let said = has_said(seen) && seen.is_well();
        let patience = match (seen.wait_ready, seen.mode) {
            (true, _) => seen.listen_timeout,
            (false, ExecMode::Cluster) => WORKER_ONLINE_BOUND.get(),
            (false, ExecMode::Fork) => 0,
        };
        let probes = &seen.spec.probes;
        let patience = match (&probes.startup, &probes.readiness) {
            (None, None) => patience,
            (Some(_), _) | (_, Some(_)) => patience.max(proof_patience(&seen.spec).get()),
        };
        let is_over = seen
            .executed_at
            .is_some_and(|at| s.now.mono.since(at).get() >= patience);
        let may = seen.executed_at.is_some() && (said || is_over);
        ensure(may, || format!("run {} of slot {}", run.id, p.pm_id))?;
    }
    Ok(())
}

fn has_said(seen: &Seen) -> bool {
    match (seen.wait_ready, seen.mode) {
        (true, _) => seen.said.ready,
        (false, ExecMode::Cluster) => seen.said.online,
        (false, ExecMode::Fork) => true,
    }
}

/// The bus hears of every run that serves and is online exactly once.
pub(crate) fn online_is_announced_once(s: &Step<'_>) -> Result<(), String> {
    for p in s.after.values() {
        let Some(run) = p.serving.as_ref().filter(|run| run.is_online()) else {
            continue;
        };
        let n = s
            .model
            .runs
            .get(&run.id)
            .map_or(0, |seen| seen.n_online_events);
        ensure(n == 1, || format!("run {}: {n} times", run.id))?;
    }
    Ok(())
}

/// A run is spawned into an empty place: nothing serves, or it is a successor
/// of what serves; and what else lives in the slot is on its way out.
pub(crate) fn a_spawn_finds_its_place(s: &Step<'_>) -> Result<(), String> {
    for (run, id) in s.spawns() {
        let Some(p) = s.after.get(&id) else {
            return Err(format!("run {run} has no slot"));
        };
        let is_serving = p.serving.as_ref().is_some_and(|r| r.id == run);
        let is_successor = matches!(&p.second, Some(Second::Successor { run: r, .. }) if r.id == run)
            && p.serving.as_ref().is_some_and(Run::is_online);
        ensure(is_serving || is_successor, || format!("run {run}"))?;
        let idlers = p.runs().filter(|r| r.id != run && !r.is_stopping());
        let may_stay = usize::from(is_successor);
        ensure(idlers.count() <= may_stay, || format!("run {run}"))?;
    }
    Ok(())
}

/// A successor takes over from a living predecessor only after its proof.
pub(crate) fn only_the_proven_take_over(s: &Step<'_>) -> Result<(), String> {
    for (before, after) in reloading(s) {
        let (Some(old), Some(second)) = (&before.serving, &before.second) else {
            continue;
        };
        let successor = second.run();
        let took_over = after.serving.as_ref().is_some_and(|r| r.id == successor.id);
        let is_dead = matches!(s.event, Event::Exited { run, .. } if *run == old.id);
        if !took_over || is_dead {
            continue;
        }
        let Some(seen) = s.model.runs.get(&successor.id) else {
            return Err(format!("run {} is unknown", successor.id));
        };
        let old_keys = s.model.runs.get(&old.id).map(|seen| &seen.said.listening);
        let is_told = run_of(s.event) == Some(old.id);
        let old_keys = old_keys.filter(|keys| !keys.is_empty() || is_told);
        let keys = old_keys.unwrap_or(&before.keys);
        let has_keys = !keys.is_empty();
        let spec = &successor.spec;
        let min_ready = spec.reload.min_ready;
        let is_complete = s.model.is_complete(old.id, successor.id, keys);
        let may = if seen.wait_ready || has_keys || spec.probes.readiness.is_some() {
            let since = seen.complete_since.unwrap_or(s.now.mono);
            is_complete && s.now.mono.since(since) >= min_ready
        } else {
            let age = seen.executed_at.map(|at| s.now.mono.since(at));
            is_complete && age >= Some(spec.restart.min_uptime.max(min_ready))
        };
        ensure(may, || {
            format!("run {} of slot {}", successor.id, before.pm_id)
        })?;
    }
    Ok(())
}

/// A reload that fails leaves predecessor, spec and counters as they were.
pub(crate) fn a_failed_reload_changes_nothing(s: &Step<'_>) -> Result<(), String> {
    for (before, after) in reloading(s) {
        let still_tries = matches!(after.second, Some(Second::Successor { .. }));
        let (Some(old), Some(kept)) = (&before.serving, &after.serving) else {
            continue;
        };
        if kept.id != old.id || kept.is_stopping() {
            continue;
        }
        let is_same = kept.pid == old.pid
            && Arc::ptr_eq(&after.spec, &old.spec)
            && Arc::ptr_eq(&kept.spec, &old.spec)
            && after.history.restart_time == before.history.restart_time
            && after.history.started_at == before.history.started_at
            && (after.facts.version == before.facts.version);
        let is_reset = s.is_wish_for(before.pm_id);
        ensure(is_same || is_reset, || {
            format!("slot {} (goes on: {still_tries})", before.pm_id)
        })?;
    }
    // A beginning changes nothing of what serves either.
    for (id, after) in s.after {
        let Some(before) = s.before.get(id) else {
            continue;
        };
        let begins =
            before.second.is_none() && matches!(after.second, Some(Second::Successor { .. }));
        let is_same = after.history.started_at == before.history.started_at
            && after.facts.axm == before.facts.axm
            && after.history.restart_time == before.history.restart_time;
        ensure(!begins || is_same, || format!("slot {id} begins"))?;
    }
    Ok(())
}

/// While a run is replaced, one of the two is online, unless it dies itself or
/// somebody asks for something else.
pub(crate) fn a_reload_leaves_no_gap(s: &Step<'_>) -> Result<(), String> {
    for (before, after) in reloading(s) {
        let old = before.serving.as_ref().filter(|run| run.is_online());
        let Some(old) = old else { continue };
        let is_own_end = run_of(s.event) == Some(old.id) && matches!(s.event, Event::Exited { .. });
        let is_online = after.serving.as_ref().is_some_and(Run::is_online);
        let may = is_online || is_own_end || s.is_wish_for(before.pm_id);
        ensure(may, || format!("slot {}", before.pm_id))?;
    }
    Ok(())
}

/// Whoever loses a reload gets no connections before it is asked to end.
pub(crate) fn the_replaced_are_detached_first(s: &Step<'_>) -> Result<(), String> {
    for (before, after) in reloading(s) {
        if s.is_wish_for(before.pm_id) || after.serving.as_ref().is_none_or(Run::is_stopping) {
            continue;
        }
        for (killed, _) in s.kills() {
            if before.runs().any(|run| run.id == killed) {
                let order = Action::Detach { run: killed };
                let detach = s.actions.iter().position(|action| *action == order);
                let is_kill = |a: &Action| matches!(a, Action::Kill { run, .. } if *run == killed);
                let kill = s.actions.iter().position(is_kill);
                let may = detach.is_some() && detach < kill;
                ensure(may, || format!("run {killed}"))?;
                let is_seen = s
                    .model
                    .runs
                    .get(&killed)
                    .is_some_and(|seen| seen.is_detached);
                ensure(is_seen, || format!("run {killed}"))?;
            }
        }
    }
    Ok(())
}

/// If the predecessor dies during a reload the successor serves: no third run.
pub(crate) fn a_death_promotes_the_successor(s: &Step<'_>) -> Result<(), String> {
    for (before, after) in reloading(s) {
        let (Some(old), Some(second)) = (&before.serving, &before.second) else {
            continue;
        };
        if matches!(s.event, Event::Exited { run, .. } if *run == old.id) {
            let successor = second.run().id;
            let serves = after
                .serving
                .as_ref()
                .is_some_and(|run| run.id == successor);
            ensure(serves, || format!("slot {}", before.pm_id))?;
        }
    }
    Ok(())
}

/// Returns the slots in which a reload was under way before this step.
fn reloading<'a>(s: &'a Step<'_>) -> impl Iterator<Item = (&'a Process, &'a Process)> {
    s.before
        .values()
        .filter(|p| matches!(p.second, Some(Second::Successor { .. })))
        .filter_map(|p| s.after.get(&p.pm_id).map(|after| (p, after)))
}
