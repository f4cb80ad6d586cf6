//! Help texts, made from the tables.

use super::options::OPTIONS;
use super::verbs::{VERBS, Verb};
use crate::paths::Style;
use musher_core::app::attributes::{self, FlagValue};

/// Column of the meanings.
const MEANING_COLUMN: usize = 46;

/// Returns the lines shown without a command; PM2's are fixed.
pub(super) fn usage(style: Style) -> String {
    let (program, home) = names(style);
    if style == Style::Musher {
        return format!(
            "usage: musher [options] <command>\n\n\
             musher -h, --help             all available commands and options\n\
             musher <command> -h           help on a specific command\n\n\
             Access musher files in {home}"
        );
    }
    format!(
        "usage: {program} [options] <command>\n\n\
         {program} -h, --help             all available commands and options\n\
         {program} examples               display {program} usage examples\n\
         {program} <command> -h           help on a specific command\n\n\
         Access {program} files in {home}"
    )
}

/// Returns the whole help.
pub(super) fn all(style: Style) -> String {
    let (program, _) = names(style);
    let mut out = format!("\n  Usage: {program} [cmd] app\n\n  Commands:\n\n");
    for verb in VERBS.iter().filter(|verb| !verb.doc.is_empty()) {
        line(&left(verb), verb.doc, &mut out);
    }
    out.push_str("\n  Options:\n\n");
    for option in OPTIONS {
        line(
            &flag(option.long, option.short, option.value),
            option.doc,
            &mut out,
        );
    }
    push_attributes(&mut out);
    out
}

/// Returns the help of one verb.
pub(super) fn of(verb: &Verb, style: Style) -> String {
    let (program, _) = names(style);
    let mut out = format!(
        "\n  Usage: {program} {} [options] {}\n\n  {}\n\n  Options:\n\n",
        verb.name, verb.operands, verb.doc
    );
    for option in OPTIONS {
        if option.verbs.is_empty() || option.verbs.contains(&verb.name) {
            line(
                &flag(option.long, option.short, option.value),
                option.doc,
                &mut out,
            );
        }
    }
    if verb.takes_attributes() {
        push_attributes(&mut out);
    }
    out
}

fn push_attributes(out: &mut String) {
    for row in attributes::flags() {
        for found in row.flags {
            line(&flag(found.long, found.short, found.value), row.doc, out);
        }
    }
}

/// Returns the name of the program.
pub(super) fn program(style: Style) -> &'static str {
    names(style).0
}

fn names(style: Style) -> (&'static str, &'static str) {
    match style {
        Style::Musher => ("musher", "~/.musher"),
        Style::Pm2 => ("pm2", "~/.pm2"),
    }
}

fn left(verb: &Verb) -> String {
    let names: Vec<&str> = [verb.name]
        .into_iter()
        .chain(verb.aliases.iter().copied())
        .collect();
    format!("{} {}", names.join("|"), verb.operands)
}

fn flag(long: &str, short: Option<char>, value: FlagValue) -> String {
    let short = short.map_or(String::new(), |letter| format!("-{letter} "));
    match value {
        FlagValue::On | FlagValue::Off => format!("{short}--{long}"),
        FlagValue::One(name) => format!("{short}--{long} <{name}>"),
        FlagValue::Maybe(name) | FlagValue::Many(name) => format!("{short}--{long} [{name}]"),
    }
}

fn line(left: &str, meaning: &str, out: &mut String) {
    out.push_str(&format!("    {left:<MEANING_COLUMN$} {meaning}\n"));
}
