//! `report`: facts for a bug report, without environments.

use crate::cli::context::Context;
use crate::cli::verbs::Outcome;
use crate::logfile::TailBlock;
use serde_json::{Value, json};

/// Columns of a rule.
const RULE_WIDTH: usize = 79;
/// Lines of the daemon's log.
const N_LOG_LINES: usize = 20;

/// Prints daemon, client, system, list and the end of the daemon's log.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let report = ctx.daemon()?.read("getReport", json!({}))?;
    let console = &mut ctx.console;
    console.line("```");
    title(console, "PM2 report");
    field(console, "Date", &jiff::Timestamp::now().to_string());
    title(console, "Daemon");
    for key in [
        "pm2_version",
        "node_version",
        "argv0",
        "user",
        "uid",
        "gid",
        "started_at",
    ] {
        let value = report.get(key).map_or_else(String::new, plain);
        field(console, key, &value);
    }
    title(console, "CLI");
    field(console, "local pm2", crate::version::own());
    field(console, "home", &ctx.paths.home.display().to_string());
    title(console, "System info");
    field(console, "arch", std::env::consts::ARCH);
    field(console, "platform", std::env::consts::OS);
    title(console, "PM2 list");
    ctx.print_table()?;
    title(&mut ctx.console, "Daemon logs");
    if let Some(block) = TailBlock::read(&ctx.paths.log_file, N_LOG_LINES)? {
        for line in block.lines() {
            ctx.console.line(&String::from_utf8_lossy(line));
        }
    }
    ctx.console.line("```");
    Ok(0)
}

fn title(console: &mut crate::cli::output::Console, text: &str) {
    console.line(&format!("{:-<RULE_WIDTH$}", format!("--- {text} ")));
}

fn field(console: &mut crate::cli::output::Console, key: &str, value: &str) {
    console.line(&format!("{key:<20} : {value}"));
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
