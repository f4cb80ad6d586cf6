//! The command line: argv to one verb, and the verb's outcome to an exit code.
//!
//! It holds no state: killed anywhere, the daemon is right. Texts, streams and
//! exit codes of PM2's verbs are PM2's, because scripts grep and test them.

mod boxes;
mod caller;
mod commands;
mod connections;
mod context;
mod describe;
mod help;
mod options;
mod output;
mod parse;
mod process;
mod roll;
mod source;
mod table;
mod transaction;
mod typed;
mod units;
mod verbs;

#[cfg(test)]
mod readme_tests;
#[cfg(test)]
mod tests;

use crate::paths::{Paths, Style, program_name};
use caller::Caller;
use context::Context;
use musher_core::app::attributes;
use output::{Console, Failure, terminal_width, wants_color};
use parse::{Parsed, UsageError};
use std::io::IsTerminal;
use std::process::ExitCode;
use verbs::Verb;

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let mut argv = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let argv0 = argv.next().unwrap_or_default();
    let argv: Vec<String> = argv.collect();
    let style = Style::of(&argv0);
    let paths = Paths::find(style, |name| std::env::var_os(name));
    let mut ctx = context(style, paths);
    if let missing @ ("pm2-runtime" | "pm2-docker" | "pm2-dev") = program_name(&argv0) {
        let text = format!("{missing} is not in this version; use `pm2 start` and `pm2 logs`");
        ctx.console.error(&text);
        return ExitCode::FAILURE;
    }
    ExitCode::from(run(&mut ctx, &argv))
}

/// Starts the saved list of a home, as `resurrect` does; returns whether there
/// was a daemon to tell.
pub(crate) fn resurrect(paths: Paths) -> bool {
    let mut ctx = context(Style::Musher, paths);
    run(&mut ctx, &["resurrect".to_owned()]) == 0
}

fn context(style: Style, paths: Paths) -> Context {
    Context {
        paths,
        console: console(style),
        parsed: Parsed::default(),
        caller: Caller::default(),
        client: None,
    }
}

fn console(style: Style) -> Console {
    let var = |name: &str| std::env::var(name).ok();
    let stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    Console {
        style,
        color_out: wants_color(is_terminal, var),
        color_err: wants_color(std::io::stderr().is_terminal(), var),
        silent: var("PM2_SILENT").is_some_and(|value| !value.is_empty()),
        data_only: false,
        width: is_terminal.then(|| terminal_width(&stdout)).flatten(),
        out: Box::new(stdout),
        err: Box::new(std::io::stderr()),
    }
}

/// Runs one command line; returns the exit code.
fn run(ctx: &mut Context, argv: &[String]) -> u8 {
    match parse::parse(argv) {
        Ok(parsed) => ctx.parsed = parsed,
        Err(error) => return usage_error(ctx, &error),
    }
    if ctx.parsed.has("silent") {
        ctx.console.silent = true;
    }
    if ctx.parsed.has("no-color") {
        ctx.console.color_out = false;
        ctx.console.color_err = false;
    }
    if ctx.parsed.has("version") {
        // Scripts ask `pm2 --version` which PM2 they talk to.
        ctx.console.line(match ctx.console.style {
            Style::Pm2 => crate::daemon::PM2_VERSION,
            Style::Musher => crate::version::own(),
        });
        return 0;
    }
    let Some(word) = ctx.parsed.verb.clone() else {
        if ctx.parsed.has("help") {
            ctx.console.line(&help::all(ctx.console.style));
            return 0;
        }
        ctx.console.line(&help::usage(ctx.console.style));
        return 1;
    };
    if word == "help" {
        ctx.console.line(&help::all(ctx.console.style));
        return 0;
    }
    let Some(verb) = verbs::find(&word) else {
        return unknown(ctx, &word);
    };
    if ctx.parsed.has("help") {
        ctx.console.line(&help::of(verb, ctx.console.style));
        return 0;
    }
    if let Err(error) = parse::check(verb, &ctx.parsed) {
        return usage_error(ctx, &error);
    }
    if let Some(extra) = ctx.parsed.operands.first().filter(|_| verb.strict).cloned() {
        ctx.console
            .say(&format!("\nUnknown command argument: {extra}"));
        ctx.console.line(&help::all(ctx.console.style));
        return 1;
    }
    tell_without_effect(ctx, verb);
    match (verb.run)(ctx) {
        Ok(code) => code,
        Err(Failure::Told) => 1,
        Err(Failure::Error(text)) => {
            ctx.console.error(&text);
            1
        }
        Err(Failure::Helped { text, help }) => {
            ctx.console.error(&text);
            ctx.console.help(&help);
            1
        }
    }
}

/// Names, in one line, what was typed and changes nothing.
fn tell_without_effect(ctx: &mut Context, verb: &Verb) {
    let own = options::WITHOUT_EFFECT.iter().copied();
    let mut told: Vec<&str> = own.filter(|option| ctx.parsed.has(option)).collect();
    // `list --watch` is another word: it redraws the list.
    if verb.name != "list" {
        let names = attributes::without_effect(&ctx.parsed.attributes);
        told.extend(names.filter_map(|name| Some(attributes::find(name)?.flags.first()?.long)));
    }
    if told.is_empty() {
        return;
    }
    let options: Vec<String> = told.iter().map(|name| format!("--{name}")).collect();
    let verb = if options.len() == 1 {
        "is accepted but has"
    } else {
        "are accepted but have"
    };
    let text = format!("{} {verb} no effect in this version", options.join(", "));
    ctx.console.warn_err(&text);
}

fn usage_error(ctx: &mut Context, error: &UsageError) -> u8 {
    ctx.console.err_line(&format!("\n  error: {error}\n"));
    1
}

fn unknown(ctx: &mut Context, word: &str) -> u8 {
    if verbs::NOT_IN_THIS_VERSION.contains(&word) {
        ctx.console
            .error(&format!("`{word}` is not in this version"));
        return 1;
    }
    if ctx.console.style == Style::Pm2 {
        // PM2 says this on stdout, unlike its other errors.
        let text = "[PM2][ERROR] Command not found\n";
        ctx.console.line(text);
    } else {
        ctx.console.error(&format!("Command not found: {word}"));
    }
    if let Some(near) = parse::nearest_verb(word) {
        ctx.console.err_line(&format!("did you mean `{near}`?"));
    }
    ctx.console.line(&help::usage(ctx.console.style));
    1
}
