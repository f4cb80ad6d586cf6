//! `ping` and `kill`.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::roll::{self, Action};
use crate::cli::verbs::Outcome;
use crate::client::Client;
use crate::paths::Style;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longest wait for the daemon's end: every stop ladder may take its patience.
const GONE_DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for the socket after the daemon's end.
const SOCKET_DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two looks at the socket.
const SOCKET_PAUSE: Duration = Duration::from_millis(5);

/// Asks the daemon for a sign of life.
pub(in crate::cli) fn ping(ctx: &mut Context) -> Outcome {
    let answer = ctx.daemon()?.read("ping", json!({}))?;
    let word = answer.get("msg").and_then(Value::as_str).unwrap_or("pong");
    ctx.console.line(&format!("{{ msg: '{word}' }}"));
    Ok(0)
}

/// Deletes all processes and ends the daemon; without one there is nothing to
/// do.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let Some(daemon) = ctx.running_daemon()? else {
        ctx.console.warn_err("No process found");
        ctx.console.say("[v] All Applications Stopped");
        say_stopped(ctx);
        return Ok(0);
    };
    // It has no answer on PM2's wire.
    daemon.send("notifyKillPM2", &[json!({})])?;
    let list = ctx.list()?;
    if list.is_empty() {
        ctx.console.warn_err("No process found");
    } else {
        let ids: Vec<_> = list.iter().map(|process| Process(process).id()).collect();
        let action = Action {
            method: "deleteProcessId",
            event: "delete",
            target: "all",
            env: None,
        };
        roll::roll(ctx, &list, &ids, &action)?;
    }
    ctx.console.say("[v] All Applications Stopped");
    let daemon = ctx.daemon()?;
    // PM2's daemon signals this pid with SIGQUIT; 0 is nobody, and the end of
    // the connection says the same.
    daemon.send("killMe", &[json!({})])?;
    if !daemon.wait_closed(GONE_DEADLINE) || !is_gone(ctx)? {
        let text = "the daemon has not ended; its log tells why";
        return Err(Failure::Error(text.to_owned()));
    }
    say_stopped(ctx);
    Ok(0)
}

/// Waits until nobody accepts on the socket: the keeper holds it a moment
/// longer than the daemon.
fn is_gone(ctx: &Context) -> Result<bool, Failure> {
    let deadline = Instant::now() + SOCKET_DEADLINE;
    while Client::connect(&ctx.paths)?.is_some() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(SOCKET_PAUSE);
    }
    Ok(true)
}

fn say_stopped(ctx: &mut Context) {
    ctx.console.say(match ctx.console.style {
        Style::Pm2 => "[v] PM2 Daemon Stopped",
        Style::Musher => "[v] Daemon Stopped",
    });
}
