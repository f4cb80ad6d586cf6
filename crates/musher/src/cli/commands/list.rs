//! `list`, `jlist`, `prettylist`.

use crate::cli::context::Context;
use crate::cli::output::terminal_width;
use crate::cli::verbs::Outcome;
use musher_core::wire::inspect::inspect;
use serde_json::{Value, json};
use std::time::Duration;

/// Time between two drawings, as PM2's.
const REDRAW: Duration = Duration::from_millis(900);

/// Prints the process table; with `--watch` on a terminal, again and again.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    if ctx.parsed.attributes.contains_key("watch") && ctx.console.width.is_some() {
        loop {
            let list = ctx.list()?;
            ctx.console.width = terminal_width(std::io::stdout());
            let screen = screen(&ctx.table_of(&list), n_rows());
            ctx.console.data(&screen);
            std::thread::sleep(REDRAW);
        }
    }
    ctx.print_table()?;
    Ok(0)
}

/// Returns the rows of the terminal.
fn n_rows() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map_or(usize::MAX, |size| usize::from(size.ws_row))
}

/// Returns what draws a text over the last one: cursor home, each line cleared
/// to its end, and the rest of the screen. What does not fit is left out, as
/// scrolling would move the rest.
fn screen(text: &str, n_rows: usize) -> String {
    let lines = text.lines().take(n_rows.saturating_sub(1));
    let lines: String = lines.map(|line| format!("{line}\u{1b}[K\n")).collect();
    format!("\u{1b}[H{lines}\u{1b}[J")
}

/// Prints the list as one line of JSON, without a newline.
pub(in crate::cli) fn jlist(ctx: &mut Context) -> Outcome {
    let list = ctx.daemon()?.read_text("getMonitorData", json!({}))?;
    ctx.console.data(&list);
    Ok(0)
}

/// Prints the list as Node shows it, without a newline.
pub(in crate::cli) fn prettylist(ctx: &mut Context) -> Outcome {
    let list = ctx.full_list()?;
    ctx.console.data(&inspect(&Value::Array(list)));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_leaves_nothing_of_the_last_one() {
        assert_eq!(
            screen("a\nb\nc\n", 3),
            "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J"
        );
    }
}
