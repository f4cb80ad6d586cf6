//! Rules about answers, time and the restart policy.

use super::ensure;
use crate::model::{Step, run_of};
use musher_core::exit::ExitStatus;
use musher_core::id::PmId;
use musher_core::supervisor::process::{Rest, Want};
use musher_core::supervisor::restart::{BACKOFF_CAP, BACKOFF_RESET};
use musher_core::supervisor::{Action, Event, Process, Request};
use musher_core::time::Millis;

/// No request gets two answers.
pub(crate) fn a_request_is_answered_at_most_once(s: &Step<'_>) -> Result<(), String> {
    for (id, asked) in &s.model.asked {
        ensure(asked.n_answers <= 1, || format!("request {id}"))?;
    }
    Ok(())
}

/// The supervisor counts as open what is unanswered and not abandoned.
pub(crate) fn open_requests_are_those_unanswered(s: &Step<'_>) -> Result<(), String> {
    let is_open = |asked: &&crate::model::Asked| asked.n_answers == 0 && !asked.is_abandoned;
    let n = s.model.asked.values().filter(is_open).count();
    let known = s.state.n_open_requests();
    ensure(n == known, || format!("{known} of {n}"))
}

/// After a deadline was handled the next one lies ahead: no busy loop.
pub(crate) fn no_deadline_is_left_behind(s: &Step<'_>) -> Result<(), String> {
    let is_ahead = s.deadline_after.is_none_or(|at| at > s.now.mono);
    ensure(*s.event != Event::Deadline || is_ahead, || {
        format!("{:?} at {:?}", s.deadline_after, s.now.mono)
    })
}

/// A deadline handled twice at the same time orders nothing the second time.
pub(crate) fn a_repeated_deadline_does_nothing(s: &Step<'_>) -> Result<(), String> {
    ensure(!s.is_repeated || s.actions.is_empty(), || {
        format!("{:?}", s.actions)
    })
}

/// Whatever waits for time has a deadline not later than that time.
pub(crate) fn waiting_has_a_deadline(s: &Step<'_>) -> Result<(), String> {
    for p in s.after.values() {
        if let Rest::Waiting { until } = p.rest {
            let is_heard = s.deadline_after.is_some_and(|at| at <= until);
            ensure(is_heard, || format!("slot {}", p.pm_id))?;
        }
    }
    Ok(())
}

/// A delayed restart does not come early, unless a person or cron asks for it.
pub(crate) fn a_delay_is_waited_for(s: &Step<'_>) -> Result<(), String> {
    for (run, id) in s.spawns() {
        if let Some(Rest::Waiting { until }) = s.before.get(&id).map(|p| p.rest) {
            let may = until <= s.now.mono || s.is_wish_for(id) || is_cron_due(s, id);
            ensure(may, || format!("run {run}"))?;
        }
    }
    Ok(())
}

/// An ended run is followed after the declared delay; the back-off grows by
/// half each time up to its cap, and begins anew after a long run.
pub(crate) fn a_delay_is_the_declared_one(s: &Step<'_>) -> Result<(), String> {
    let Some((before, after)) = unasked_end(s) else {
        return Ok(());
    };
    let (Some(run), Rest::Waiting { until }) = (&before.serving, after.rest) else {
        return Ok(());
    };
    let policy = &before.spec.restart;
    let was_long = run.ended_at(s.now.mono).since(run.started) > BACKOFF_RESET;
    let previous = before.history.prev_delay.filter(|_| !was_long);
    let expected = match (policy.exp_backoff, previous) {
        (Some(first), None) => first,
        (Some(_), Some(previous)) => Millis(previous.get() * 3 / 2).min(BACKOFF_CAP),
        (None, _) => policy.restart_delay.unwrap_or_default(),
    };
    let got = until.since(s.now.mono);
    ensure(got == expected, || {
        format!("{got:?} instead of {expected:?}")
    })
}

/// `restart_time` falls only when it is reset.
pub(crate) fn restart_time_only_grows(s: &Step<'_>) -> Result<(), String> {
    for (id, p) in s.after {
        let before = s.before.get(id).map_or(0, |p| p.history.restart_time);
        let is_reset = matches!(s.event, Event::Request(_, Request::ResetMeta(at)) if at == id);
        let (is, was) = (p.history.restart_time, before);
        ensure(is >= was || is_reset, || {
            format!("slot {id}: {was}, then {is}")
        })?;
        // A roll may go back in the step in which a restart of it failed.
        let most = was + 1 + u32::from(s.is_wish_for(*id));
        ensure(is <= most, || format!("slot {id}: {was}, then {is}"))?;
    }
    Ok(())
}

/// The limit of unstable runs is acted on when it is reached, not later.
pub(crate) fn unstable_restarts_stay_below_the_limit(s: &Step<'_>) -> Result<(), String> {
    for p in s.after.values() {
        let (n, limit) = (p.history.unstable_restarts, p.spec.restart.max_restarts);
        ensure(n < limit.max(1), || {
            format!("slot {}: {n} of {limit}", p.pm_id)
        })?;
    }
    Ok(())
}

/// An unasked end counts as unstable if and only if run and slot were young.
pub(crate) fn unstable_runs_are_counted(s: &Step<'_>) -> Result<(), String> {
    let Some((before, after)) = unasked_end(s) else {
        return Ok(());
    };
    let Some(run) = &before.serving else {
        return Ok(());
    };
    let policy = &before.spec.restart;
    if !policy.autorestart || is_last_exit(s, before) {
        return Ok(());
    }
    let young = before.history.created.is_some_and(|(created, _)| {
        let age = run.ended_at(s.now.mono).since(created).get();
        age < policy.min_uptime.get() * u64::from(policy.max_restarts)
    });
    let is_short = run.ended_at(s.now.mono).since(run.started) < policy.min_uptime;
    let n = before.history.unstable_restarts + u32::from(young && is_short);
    let expected = if n >= policy.max_restarts { 0 } else { n };
    let got = after.history.unstable_restarts;
    ensure(got == expected, || format!("{got} instead of {expected}"))
}

/// Nothing starts again by itself that is not to be restarted: by its policy,
/// by the code it exited with, or because the daemon is ending.
pub(crate) fn no_restart_where_none_is_wanted(s: &Step<'_>) -> Result<(), String> {
    for (run, id) in s.spawns() {
        let Some(before) = s.before.get(&id) else {
            continue;
        };
        if s.is_wish_for(id) || is_cron_due(s, id) {
            continue;
        }
        // A restart somebody asked for goes on when the old run is gone.
        let is_asked_restart = before.serving.as_ref().is_some_and(|r| r.is_stopping());
        let is_reload = matches!(s.event, Event::Sampled(_) | Event::Probed { .. });
        // What a daemon left half done is done by the next one.
        if before.rest == Rest::Due {
            continue;
        }
        let is_excluded =
            s.model.is_ending || !before.spec.restart.autorestart || is_last_exit(s, before);
        let may = is_asked_restart || (is_reload && !s.model.is_ending) || !is_excluded;
        ensure(may, || format!("run {run} of slot {id}"))?;
    }
    Ok(())
}

/// An errored slot runs again only if a person or cron asks for it.
pub(crate) fn given_up_stays_given_up(s: &Step<'_>) -> Result<(), String> {
    for (run, id) in s.spawns() {
        let is_errored = s
            .before
            .get(&id)
            .is_some_and(|p| p.serving.is_none() && p.rest == Rest::Errored);
        let may = !is_errored || s.is_wish_for(id) || is_cron_due(s, id);
        ensure(may, || format!("run {run}"))?;
    }
    Ok(())
}

/// An occurrence of a cron expression that was due is not due again.
pub(crate) fn an_occurrence_fires_once(s: &Step<'_>) -> Result<(), String> {
    let n_logs = |id: PmId| {
        let text = format!(":{id}] cron restart is due");
        let is_it = |action: &&Action| matches!(action, Action::Log(line) if line.ends_with(&text));
        s.actions.iter().filter(is_it).count()
    };
    for (id, before) in s.before {
        let is_due = is_cron_due(s, *id) && !s.model.is_ending;
        let n = n_logs(*id);
        ensure(n == usize::from(is_due), || format!("slot {id}: {n} times"))?;
        if let (true, Some(after)) = (is_due, s.after.get(id)) {
            let is_ahead = after.cron.is_none_or(|due| due.at > s.now.wall);
            ensure(is_ahead, || format!("slot {id}: {:?}", before.cron))?;
        }
    }
    Ok(())
}

/// A schedule belongs to the spec in force, and a clock set back far does not
/// silence it until the clock is where it was.
pub(crate) fn a_clock_set_back_keeps_cron_going(s: &Step<'_>) -> Result<(), String> {
    for (id, p) in s.after {
        let Some(due) = p.cron else { continue };
        let Some(pattern) = &p.spec.cron_restart else {
            return Err(format!("slot {id} has a schedule its spec does not have"));
        };
        let period: u64 = pattern.parse().map_err(|_| format!("slot {id}"))?;
        let wait = due.at.since(s.now.wall).get();
        let longest = period + 3 * 3_600_000;
        let is_near = *s.event != Event::Deadline || wait <= longest;
        ensure(is_near, || format!("slot {id}: {wait} ms"))?;
    }
    Ok(())
}

/// The memory limit acts on what serves alone, never on a run in second place.
pub(crate) fn the_limit_spares_a_run_in_second_place(s: &Step<'_>) -> Result<(), String> {
    if !matches!(s.event, Event::Sampled(_)) {
        return Ok(());
    }
    for (id, before) in s.before.iter().filter(|(_, p)| p.second.is_some()) {
        let is_same = s
            .after
            .get(id)
            .is_some_and(|after| after.runs().eq(before.runs()) && after.rest == before.rest);
        ensure(is_same, || format!("slot {id}"))?;
    }
    Ok(())
}

/// `Exit` is ordered only when it was asked for and no slot is left.
pub(crate) fn exit_comes_last(s: &Step<'_>) -> Result<(), String> {
    let n = s.model.n_exits;
    ensure(n <= 1, || format!("{n} exits"))?;
    let may = s.model.is_exiting && s.after.is_empty();
    ensure(!s.actions.contains(&Action::Exit) || may, || {
        "too early".to_owned()
    })
}

/// Returns whether this step is the deadline at which a slot's cron is due.
fn is_cron_due(s: &Step<'_>, id: PmId) -> bool {
    let at = s.before.get(&id).and_then(|p| p.cron).map(|due| due.at);
    *s.event == Event::Deadline && at.is_some_and(|at| at <= s.now.wall)
}

/// Returns the slot before and after, if this step is the end of a serving
/// run nobody asked to end.
fn unasked_end<'a>(s: &'a Step<'_>) -> Option<(&'a Process, &'a Process)> {
    if !matches!(s.event, Event::Exited { .. }) {
        return None;
    }
    let id = s.owner_before?;
    let (before, after) = (s.before.get(&id)?, s.after.get(&id)?);
    let serving = before.serving.as_ref()?;
    let is_it = Some(serving.id) == run_of(s.event) && !serving.is_stopping();
    let is_it = is_it && !s.is_wish_for(id);
    (is_it && before.want == Want::Up && before.second.is_none()).then_some((before, after))
}

fn is_last_exit(s: &Step<'_>, p: &Process) -> bool {
    match s.event {
        Event::Exited {
            status: ExitStatus::Code(code),
            run,
        } => {
            let is_serving = p.serving.as_ref().is_some_and(|serving| serving.id == *run);
            is_serving && p.spec.restart.stop_exit_codes.contains(code)
        }
        _ => false,
    }
}

/// An end reaches as far as the app says, on every rung of its ladder.
pub(crate) fn a_kill_reaches_as_far_as_declared(s: &Step<'_>) -> Result<(), String> {
    for action in s.actions {
        let Action::Kill { run, tree, .. } = action else {
            continue;
        };
        let slots = s.before.values().chain(s.after.values());
        let known = slots.flat_map(Process::runs).find(|known| known.id == *run);
        let declared = known.is_none_or(|known| known.spec.stop.treekill == *tree);
        ensure(declared, || format!("run {run}: {action:?}"))?;
    }
    Ok(())
}
