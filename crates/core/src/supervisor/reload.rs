//! Reload: a successor proves itself, then the predecessor leaves.
//!
//! A successor that fails changes nothing: the predecessor goes on serving
//! from the spec it was started with. PM2 kills it all the same.

use super::action::{Action, ProcessEvent};
use super::ladder;
use super::lifecycle::{self, Ctx};
use super::process::{Goal, Process, Replacement, Rest, Second, Want};
use super::run::{Phase, Run, Rung};
use crate::app::probe::ProbeKind;
use crate::app::{AppSpec, ExecMode};
use crate::id::Incarnation;
use crate::time::{Millis, Mono};
use std::sync::Arc;

/// How long a successor may take to prove itself when the app declares no
/// `listen_timeout`. PM2's 3 s would fail every slow build; waiting costs
/// nothing while the predecessor serves.
pub const DEFAULT_PROOF: Millis = Millis(30_000);

/// Returns whether this slot can be reloaded without a gap: two runs can share
/// their sockets, because musher holds them.
pub fn is_possible(p: &Process) -> bool {
    let shares = p.spec.mode == ExecMode::Cluster || !p.spec.listen.is_empty();
    p.want == Want::Up && shares && p.serving.as_ref().is_some_and(Run::is_online)
}

/// Starts a successor beside the serving run.
pub fn begin(p: &mut Process, spec: Arc<AppSpec>, ctx: &mut Ctx<'_>) {
    debug_assert!(p.second.is_none());
    let patience = proof_patience(&spec);
    let previous = std::mem::replace(&mut p.spec, spec);
    p.history.restart_time += 1;
    let run = lifecycle::new_run(p, ctx);
    p.history.restart_time -= 1;
    p.replacement = Some(Replacement {
        old_pid: p.serving.as_ref().and_then(|run| run.pid),
        new_pid: None,
        began: ctx.now.mono,
        took_over: None,
        drained: None,
        ended: None,
        was_killed: false,
    });
    // Until it is proven the slot is what serves.
    p.spec = previous;
    p.second = Some(Second::Successor {
        run,
        prove_by: ctx.now.mono + patience,
        proven: None,
        started_at: ctx.now.wall,
        facts: Box::default(),
    });
}

/// Returns how long a run of this app may take until it serves.
pub fn proof_patience(spec: &AppSpec) -> Millis {
    if spec.declared.contains_key("listen_timeout") {
        return spec.ready.listen_timeout;
    }
    DEFAULT_PROOF
}

/// Returns whether a run is the second one of its slot.
pub fn is_second(p: &Process, id: Incarnation) -> bool {
    p.second
        .as_ref()
        .is_some_and(|second| second.run().id == id)
}

/// What a successor still owes.
enum Proof {
    /// Nothing; it has to go on like this until then.
    Given(Mono),
    Owed(String),
}

/// Returns what is missing; `proven` says since when nothing was.
fn proof(
    p: &Process,
    predecessor: &Run,
    successor: &Run,
    proven: Option<Mono>,
    now: Mono,
) -> Proof {
    if successor.died.is_some() {
        return Proof::Owed("its main process ended".to_owned());
    }
    let since = match successor.phase {
        Phase::Online { since } => since,
        Phase::Spawning | Phase::Launching { .. } | Phase::Stopping(_) => {
            return Proof::Owed(lifecycle::missing(successor));
        }
    };
    let spec = &successor.spec;
    if spec.ready.wait_ready && !successor.said.ready {
        return Proof::Owed("it did not say the message 'ready'".to_owned());
    }
    // A predecessor that is not up yet owes what the one before it listened on.
    let served = match predecessor.said.listening.is_empty() {
        true => &p.keys,
        false => &predecessor.said.listening,
    };
    if let Some(key) = served.difference(&successor.said.listening).next() {
        return Proof::Owed(format!("it does not listen on {key}"));
    }
    if successor.health.owes(&spec.probes).is_some() {
        return Proof::Owed(lifecycle::missing(successor));
    }
    if let Some(failure) = successor.health.failure(ProbeKind::Liveness) {
        return Proof::Owed(format!("its liveness probe failed: {failure}"));
    }
    let shows_nothing =
        served.is_empty() && !spec.ready.wait_ready && spec.probes.readiness.is_none();
    let min_ready = spec.reload.min_ready;
    Proof::Given(match shows_nothing {
        // Nothing can be shown but staying alive.
        true => since + spec.restart.min_uptime.max(min_ready),
        false => proven.unwrap_or(now) + min_ready,
    })
}

/// Returns when the judgement on a successor is due.
pub fn deadline(p: &Process) -> Option<Mono> {
    let (Some(serving), Some(second)) = (&p.serving, &p.second) else {
        return None;
    };
    let Second::Successor {
        run,
        prove_by,
        proven,
        ..
    } = second
    else {
        return None;
    };
    // The instant matters only where nothing was missing yet, which `check`
    // has noted in the step before.
    let judgement = match proof(p, serving, run, *proven, *prove_by) {
        Proof::Given(until) => until,
        Proof::Owed(_) => *prove_by,
    };
    let question = run.health.deadline().filter(|_| run.is_executed());
    Some(question.map_or(judgement, |at| at.min(judgement)))
}

/// Hands over if the successor is proven; gives up on it if its time is up.
pub fn check(p: &mut Process, ctx: &mut Ctx<'_>) {
    let (Some(serving), Some(second)) = (&p.serving, &p.second) else {
        return;
    };
    let Second::Successor {
        run,
        prove_by,
        proven,
        ..
    } = second
    else {
        return;
    };
    let now = ctx.now.mono;
    let judgement = proof(p, serving, run, *proven, now);
    match judgement {
        Proof::Given(until) if until <= now => hand_over(p, ctx),
        Proof::Given(_) => note_proven(p, Some(now)),
        Proof::Owed(_) if *prove_by <= now && planted!(UnprovenTakesOver) => hand_over(p, ctx),
        Proof::Owed(what) if *prove_by <= now => {
            let waited = now.since(run.started).get();
            let reason = format!(
                "{what} within {waited} ms; the old process goes on serving \
                 (raise listen_timeout if the app needs longer to start)"
            );
            abort(p, &reason, ctx);
        }
        Proof::Owed(_) if planted!(ProofRemembered) => {}
        Proof::Owed(_) => note_proven(p, None),
    }
}

/// Remembers since when nothing is missing, or that something is again.
fn note_proven(p: &mut Process, at: Option<Mono>) {
    if let Some(Second::Successor { proven, .. }) = &mut p.second {
        *proven = at.map(|now| proven.unwrap_or(now));
    }
}

fn hand_over(p: &mut Process, ctx: &mut Ctx<'_>) {
    let Some(mut predecessor) = p.serving.take() else {
        return;
    };
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] -reload- New worker ready",
        p.spec.name, p.pm_id
    )));
    promote(p, ctx);
    ladder::begin_drain(&mut predecessor, ctx);
    p.second = Some(Second::Leaving(predecessor));
}

/// Ends a reload without changing what serves.
pub fn abort(p: &mut Process, reason: &str, ctx: &mut Ctx<'_>) {
    let Some(second) = p.second.take() else {
        return;
    };
    let mut run = match second {
        Second::Leaving(run) => {
            p.second = Some(Second::Leaving(run));
            return;
        }
        Second::Successor { run, .. } => run,
    };
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] -reload- {reason}",
        p.spec.name, p.pm_id
    )));
    p.reason = Some(format!("the last reload failed: {reason}"));
    ladder::begin_stop(&mut run, ctx);
    p.second = Some(Second::Leaving(run));
    lifecycle::fail(p, reason, ctx, |goal| goal == Goal::Reloaded);
}

/// Nothing is left of the second run: a failed successor (`reason`), or a
/// run that was being ended.
pub fn second_is_gone(p: &mut Process, reason: Option<&str>, ctx: &mut Ctx<'_>) {
    let Some(second) = p.second.take() else {
        return;
    };
    match (second, reason) {
        (Second::Successor { .. }, Some(reason)) => {
            let name = &p.spec.name;
            ctx.out.push(Action::Log(format!(
                "App [{name}:{}] -reload- {reason}",
                p.pm_id
            )));
            p.reason = Some(format!("the last reload failed: {reason}"));
            lifecycle::fail(p, reason, ctx, |goal| goal == Goal::Reloaded);
        }
        (Second::Leaving(run), _) => {
            if let Phase::Stopping(stopping) = &run.phase {
                p.history.last_exit = stopping.exited.or(p.history.last_exit);
                // A successor that failed was never the predecessor.
                let replacement = p.replacement.as_mut();
                if let Some(replacement) = replacement.filter(|r| r.took_over.is_some()) {
                    replacement.ended = Some(ctx.now.mono);
                    replacement.was_killed = match stopping.rung {
                        Rung::Killed { .. } | Rung::Stuck => true,
                        Rung::Draining { .. } | Rung::Asked { .. } => false,
                    };
                }
            }
            if p.serving.as_ref().is_some_and(Run::is_online) {
                lifecycle::settle(p, ctx, |goal| goal == Goal::Reloaded);
            }
        }
        (Second::Successor { .. }, None) => {}
    }
}

/// Makes a successor the serving run, because it is proven or because nothing
/// serves any more. Returns whether there was one.
pub fn promote(p: &mut Process, ctx: &mut Ctx<'_>) -> bool {
    if planted!(PromoteForgotten) && p.serving.is_none() {
        return false;
    }
    let (run, started_at, facts) = match p.second.take() {
        Some(Second::Successor {
            run,
            started_at,
            facts,
            ..
        }) => (run, started_at, facts),
        other => {
            p.second = other;
            return false;
        }
    };
    let is_online = run.is_online();
    p.spec = run.spec.clone();
    p.history.restart_time += 1;
    p.history.created = Some((run.started, started_at));
    p.history.started_at = started_at;
    p.history.unstable_restarts = 0;
    p.history.prev_delay = None;
    p.facts = *facts;
    p.rest = Rest::Stopped;
    p.reason = None;
    if let Some(replacement) = &mut p.replacement {
        replacement.took_over = Some(ctx.now.mono);
        replacement.new_pid = run.pid;
    }
    p.keys = run.said.listening.clone();
    p.serving = Some(run);
    super::revision::note(p);
    if is_online && !planted!(PromotionUnannounced) {
        lifecycle::emit(p, ProcessEvent::Online, false, ctx);
    }
    true
}
