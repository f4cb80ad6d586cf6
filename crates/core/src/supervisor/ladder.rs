//! The stop ladder of one run: drained, asked, killed, stuck.
//!
//! It ends a run and never decides whether one is to end.

use super::action::Action;
use super::lifecycle::Ctx;
use super::run::{Phase, Run, Rung, Stopping};
use crate::exit::Signal;
use crate::time::Millis;

/// What SIGKILL gets to take effect before a process counts as unkillable,
/// however short the app's `kill_timeout`: a busy machine reaps late.
pub const SIGKILL_PATIENCE: Millis = Millis(1000);

/// Begins the end of a run: it is asked.
pub fn begin_stop(run: &mut Run, ctx: &mut Ctx<'_>) {
    if run.is_stopping() {
        return;
    }
    // What it closes from here on it closes because it was told to: its slot
    // keeps its sockets, and the others serve them.
    ctx.out.push(Action::Detach { run: run.id });
    ask(run, ctx);
}

/// Begins the end of a run whose work others go on with: it first finishes
/// what it has accepted, if it has an agent to do so.
pub fn begin_drain(run: &mut Run, ctx: &mut Ctx<'_>) {
    let policy = run.spec.reload;
    let can = run.said.agent || planted!(MuteDrains);
    if run.is_stopping() || !can || policy.drain == Millis(0) {
        return begin_stop(run, ctx);
    }
    ctx.out.push(Action::Detach { run: run.id });
    ctx.out.push(Action::Drain {
        run: run.id,
        limit: policy.drain,
        websockets: policy.websockets,
    });
    let until = match planted!(DrainUnbounded) {
        true => ctx.now.mono + policy.drain + policy.drain,
        false => ctx.now.mono + policy.drain,
    };
    run.phase = Phase::Stopping(Stopping {
        rung: Rung::Draining { ask_at: until },
        exited: None,
        tree_gone: false,
    });
}

/// Says again what a daemon that died may not have said of a run on its way
/// out: it gets no connections, and it drains. An agent that has drained
/// already answers so.
pub fn say_again(run: &Run, ctx: &mut Ctx<'_>) {
    let Phase::Stopping(stopping) = &run.phase else {
        return;
    };
    ctx.out.push(Action::Detach { run: run.id });
    if let Rung::Draining { ask_at } = stopping.rung {
        ctx.out.push(Action::Drain {
            run: run.id,
            limit: ask_at.since(ctx.now.mono),
            websockets: run.spec.reload.websockets,
        });
    }
}

/// Ends a drain before its time; a run that does not drain is left alone.
pub fn hasten(run: &mut Run, ctx: &mut Ctx<'_>) {
    if let Phase::Stopping(stopping) = &run.phase
        && let Rung::Draining { .. } = stopping.rung
    {
        ask(run, ctx);
    }
}

/// The first rung on which a run is told to end.
fn ask(run: &mut Run, ctx: &mut Ctx<'_>) {
    let stop = &run.spec.stop;
    let by_message = stop.with_message && !matches!(run.phase, Phase::Spawning);
    if by_message {
        ctx.out.push(Action::AskToShutDown { run: run.id });
    }
    let signal = (!by_message).then_some(stop.signal);
    ctx.out.push(Action::Kill {
        run: run.id,
        signal,
        tree: stop.treekill,
    });
    // A daemon that took over watches a draining run from the start: it is told
    // only once that the tree is gone, perhaps before the exit.
    let (exited, tree_gone) = match &run.phase {
        Phase::Stopping(stopping) => (stopping.exited, stopping.tree_gone),
        Phase::Spawning | Phase::Launching { .. } | Phase::Online { .. } => (None, false),
    };
    run.phase = Phase::Stopping(Stopping {
        rung: Rung::Asked {
            // At least one tick, so that a deadline always lies ahead.
            kill_at: ctx.now.mono + stop.kill_timeout.max(Millis(1)),
        },
        exited,
        tree_gone,
    });
}

/// Climbs the stop ladder when its time has come. Returns whether the run
/// turned out to be unkillable.
pub fn climb(run: &mut Run, name: &str, ctx: &mut Ctx<'_>) -> bool {
    let now = ctx.now.mono;
    let Phase::Stopping(stopping) = &mut run.phase else {
        return false;
    };
    match stopping.rung {
        Rung::Draining { ask_at } if ask_at <= now => {
            ask(run, ctx);
            false
        }
        Rung::Asked { kill_at } if kill_at <= now => {
            let timeout = run.spec.stop.kill_timeout;
            let pid = run.pid.unwrap_or(0);
            ctx.out.push(Action::Log(format!(
                "Process with pid {pid} ({name}) still alive after {}ms, sending SIGKILL",
                timeout.get()
            )));
            ctx.out.push(Action::Kill {
                run: run.id,
                signal: Some(Signal::KILL),
                tree: run.spec.stop.treekill,
            });
            if planted!(LadderStays) {
                return false;
            }
            stopping.rung = Rung::Killed {
                give_up_at: now + timeout.max(SIGKILL_PATIENCE),
            };
            false
        }
        Rung::Killed { give_up_at } if give_up_at <= now => {
            stopping.rung = Rung::Stuck;
            true
        }
        Rung::Draining { .. } | Rung::Asked { .. } | Rung::Killed { .. } | Rung::Stuck => false,
    }
}

/// Puts a stuck run back on the last rung: a person asked again.
pub fn retry_stuck(run: &mut Run, ctx: &mut Ctx<'_>) {
    let Phase::Stopping(stopping) = &mut run.phase else {
        return;
    };
    match stopping.rung {
        Rung::Stuck => {
            ctx.out.push(Action::Kill {
                run: run.id,
                signal: Some(Signal::KILL),
                tree: run.spec.stop.treekill,
            });
            stopping.rung = Rung::Killed {
                give_up_at: ctx.now.mono + run.spec.stop.kill_timeout.max(SIGKILL_PATIENCE),
            };
        }
        Rung::Draining { .. } | Rung::Asked { .. } | Rung::Killed { .. } => {}
    }
}
