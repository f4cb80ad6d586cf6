//! `flush`: empties log files in place.

use crate::cli::context::Context;
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Empties the logs of a name or id, or all of them with the daemon's.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let list = ctx.list()?;
    let target = ctx.parsed.operands.first().cloned();
    if target.is_none() {
        let log = ctx.paths.log_file.display().to_string();
        ctx.console.say(&format!("Flushing {log}"));
        truncate(&log)?;
    }
    for process in list.iter().map(Process) {
        let id = process.id().to_string();
        let is_meant = target
            .as_ref()
            .is_none_or(|target| *target == id || target == process.name());
        if !is_meant {
            continue;
        }
        ctx.console.say("Flushing:");
        for key in ["pm_out_log_path", "pm_err_log_path", "pm_log_path"] {
            let Some(path) = process.text(key).filter(|path| is_file(path)) else {
                continue;
            };
            ctx.console.say(path);
            truncate(path)?;
        }
    }
    ctx.console.say("Logs flushed");
    Ok(0)
}

fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

fn truncate(path: &str) -> std::io::Result<()> {
    match File::options().write(true).truncate(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
