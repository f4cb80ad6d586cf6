//! argv to a command: PM2's loose grammar.
//!
//! Options may stand anywhere before `--`; the first other word is the verb,
//! the rest are its operands; what follows `--` goes to the app untouched.
//! Nothing is looked up and nothing is printed here.

use super::options::OPTIONS;
use super::verbs::{self, Verb};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use musher_core::app::attributes::{self, FlagValue};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A parsed command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Parsed {
    /// First word; `None` when there is none.
    pub(super) verb: Option<String>,
    /// Words after it.
    pub(super) operands: Vec<String>,
    /// Words after `--`; `None` without a `--`.
    pub(super) rest: Option<Vec<String>>,
    /// Attributes of an app as they were typed, by canonical name.
    pub(super) attributes: Map<String, Value>,
    /// Other options by long name; flags have no value.
    pub(super) options: BTreeMap<String, Option<String>>,
}

/// Why a command line is not understood; Display is PM2's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    /// An option nobody knows.
    #[error("unknown option `{option}'{}", hint(.suggestion))]
    UnknownOption {
        /// As it was typed.
        option: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// An option without its value.
    #[error("option `{0}' argument missing")]
    MissingValue(String),
    /// A verb without its operand.
    #[error("missing required argument `{0}'")]
    MissingOperand(&'static str),
    /// Something else, in clap's words.
    #[error("{0}")]
    Other(String),
}

fn hint(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(option) => format!(" (did you mean {option}?)"),
        None => String::new(),
    }
}

impl Parsed {
    /// Returns true when an option was given.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    /// Returns the value of an option.
    pub(super) fn value(&self, option: &str) -> Option<&str> {
        self.options.get(option)?.as_deref()
    }
}

/// Parses the words after the program name.
///
/// # Errors
/// [`UsageError`].
pub(super) fn parse(argv: &[String]) -> Result<Parsed, UsageError> {
    let dashes = argv.iter().position(|word| word == "--");
    let before = &argv[..dashes.unwrap_or(argv.len())];
    let rest = dashes.map(|at| argv[at + 1..].to_vec());
    if before.iter().all(|word| !is_option(word)) {
        // The common case, in which building the grammar is most of the work.
        let mut words = before.iter().cloned();
        return Ok(Parsed {
            verb: words.next(),
            operands: words.collect(),
            rest,
            ..Parsed::default()
        });
    }
    let matches = grammar()
        .try_get_matches_from(before)
        .map_err(|error| usage_error(&error, before))?;
    let mut words = matches
        .get_many::<String>("words")
        .unwrap_or_default()
        .cloned();
    let mut parsed = Parsed {
        verb: words.next(),
        operands: words.collect(),
        rest,
        ..Parsed::default()
    };
    collect_options(&matches, &mut parsed);
    collect_attributes(&matches, &mut parsed);
    Ok(parsed)
}

/// Returns true for what may be an option; a single dash is stdin.
fn is_option(word: &str) -> bool {
    word.starts_with('-') && word.len() > 1
}

/// Checks options and operands against the verb.
///
/// # Errors
/// An option of another verb; a missing operand.
pub(super) fn check(verb: &Verb, parsed: &Parsed) -> Result<(), UsageError> {
    for option in OPTIONS {
        let known = option.verbs.is_empty() || option.verbs.contains(&verb.name);
        if !known && parsed.has(option.long) {
            return Err(UsageError::UnknownOption {
                option: format!("--{}", option.long),
                suggestion: None,
            });
        }
    }
    if parsed.operands.len() < verb.n_required {
        let mut names = verb.operands.split(' ').skip(parsed.operands.len());
        let name = names.next().unwrap_or(verb.operands);
        return Err(UsageError::MissingOperand(name.trim_matches(['<', '>'])));
    }
    Ok(())
}

/// Returns the verb nearest to a mistyped word.
pub(super) fn nearest_verb(word: &str) -> Option<&'static str> {
    let names = verbs::VERBS.iter().filter(|verb| !verb.doc.is_empty());
    let spellings = names.flat_map(|verb| verb.aliases.iter().copied().chain([verb.name]));
    spellings
        .filter(|name| name.len() > 2)
        .map(|name| (distance(word, name), name))
        .filter(|(far, name)| *far <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// Counts insertions, deletions, replacements and swaps of neighbours between
/// two words, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_ascii_lowercase().chars().collect();
    let b: Vec<char> = b.to_ascii_lowercase().chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

fn grammar() -> Command {
    let words = Arg::new("words").num_args(0..).allow_negative_numbers(true);
    let mut command = Command::new("musher")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(words)
        .arg(Arg::new("V").short('V').action(ArgAction::SetTrue));
    for option in OPTIONS {
        command = command.arg(arg(option.long, option.short, option.value));
    }
    for row in attributes::flags() {
        for flag in row.flags {
            command = command.arg(arg(flag.long, flag.short, flag.value));
        }
    }
    command
}

/// Returns the grammar as a tree of verbs, as scripts that complete need it.
/// Lines are not parsed by it: PM2 lets options stand before the verb.
pub(super) fn tree(program: &'static str) -> Command {
    let bare = |name: &'static str| {
        Command::new(name)
            .disable_help_flag(true)
            .disable_version_flag(true)
            .disable_help_subcommand(true)
    };
    let verbs = verbs::VERBS.iter().filter(|verb| !verb.doc.is_empty());
    bare(program).subcommands(verbs.map(|verb| {
        let own = OPTIONS
            .iter()
            .filter(|option| option.verbs.is_empty() || option.verbs.contains(&verb.name))
            .map(|option| arg(option.long, option.short, option.value).help(option.doc));
        let attributes = attributes::flags()
            .filter(|_| verb.takes_attributes())
            .flat_map(|row| row.flags.iter().map(move |flag| (row, flag)))
            .map(|(row, flag)| arg(flag.long, flag.short, flag.value).help(row.doc));
        bare(verb.name)
            .about(verb.doc)
            .visible_aliases(verb.aliases)
            .args(own.chain(attributes))
            .arg(
                Arg::new("words")
                    .num_args(0..)
                    .value_hint(ValueHint::FilePath),
            )
    }))
}

fn arg(long: &'static str, short: Option<char>, value: FlagValue) -> Arg {
    let arg = Arg::new(long).long(long);
    let arg = match short {
        Some(letter) => arg.short(letter),
        None => arg,
    };
    match value {
        FlagValue::On | FlagValue::Off => arg.action(ArgAction::SetTrue),
        FlagValue::One(_) => arg.action(ArgAction::Set).allow_hyphen_values(true),
        FlagValue::Maybe(_) => arg.action(ArgAction::Set).num_args(0..=1),
        FlagValue::Many(_) => arg.action(ArgAction::Append).num_args(0..=1),
    }
}

fn collect_options(matches: &ArgMatches, parsed: &mut Parsed) {
    for option in OPTIONS {
        let value = match option.value {
            FlagValue::On | FlagValue::Off if matches.get_flag(option.long) => None,
            FlagValue::On | FlagValue::Off => continue,
            FlagValue::One(_) | FlagValue::Maybe(_) | FlagValue::Many(_) => {
                if matches.value_source(option.long).is_none() {
                    continue;
                }
                matches.get_one::<String>(option.long).cloned()
            }
        };
        parsed.options.insert(option.long.to_owned(), value);
    }
    if matches.get_flag("V") {
        parsed.options.insert("version".to_owned(), None);
    }
}

fn collect_attributes(matches: &ArgMatches, parsed: &mut Parsed) {
    for row in attributes::flags() {
        for flag in row.flags {
            let id = flag.long;
            let value = match flag.value {
                FlagValue::On if matches.get_flag(id) => Value::Bool(true),
                FlagValue::Off if matches.get_flag(id) => Value::Bool(false),
                FlagValue::On | FlagValue::Off => continue,
                FlagValue::One(_) | FlagValue::Maybe(_) | FlagValue::Many(_) => {
                    if matches.value_source(id).is_none() {
                        continue;
                    }
                    typed_value(
                        matches.get_many::<String>(id).unwrap_or_default(),
                        flag.value,
                    )
                }
            };
            parsed.attributes.insert(row.name.to_owned(), value);
        }
    }
}

fn typed_value<'a>(values: impl Iterator<Item = &'a String>, kind: FlagValue) -> Value {
    let mut values: Vec<Value> = values.cloned().map(Value::String).collect();
    match (kind, values.len()) {
        (_, 0) => Value::Bool(true),
        (FlagValue::Many(_), _) => Value::Array(values),
        (_, _) => values.pop().unwrap_or(Value::Null),
    }
}

fn usage_error(error: &clap::Error, argv: &[String]) -> UsageError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let invalid = context(ContextKind::InvalidArg);
    match (error.kind(), invalid) {
        (ErrorKind::UnknownArgument, Some(option)) => UsageError::UnknownOption {
            suggestion: context(ContextKind::SuggestedArg)
                .map(|name| name.split(' ').next().unwrap_or(&name).to_owned()),
            option,
        },
        (ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues, Some(option)) => {
            UsageError::MissingValue(option_as_shown(&option, argv))
        }
        (_, _) => UsageError::Other(error.to_string().trim().to_owned()),
    }
}

/// Returns an option as PM2 names it: ``-i --instances <number>``.
fn option_as_shown(option: &str, argv: &[String]) -> String {
    let long = option
        .trim_start_matches('-')
        .split([' ', '='])
        .next()
        .unwrap_or("");
    let own = OPTIONS.iter().map(|opt| (opt.long, opt.short, opt.value));
    let apps = attributes::flags().flat_map(|row| row.flags);
    let mut all = own.chain(apps.map(|flag| (flag.long, flag.short, flag.value)));
    match all.find(|(name, _, _)| *name == long) {
        Some((long, short, FlagValue::One(name) | FlagValue::Many(name))) => {
            let short = short.map_or(String::new(), |letter| format!("-{letter} "));
            format!("{short}--{long} <{name}>")
        }
        Some(_) | None => argv.last().cloned().unwrap_or_else(|| option.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn parsed(line: &str) -> Parsed {
        parse(&words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    #[rustfmt::skip]
    fn options_stand_anywhere_before_the_dashes() {
        for (line, verb, operands, attributes) in [
            ("start app.js", "start", &["app.js"][..], json!({})),
            ("--name x start app.js", "start", &["app.js"], json!({"name": "x"})),
            ("start --name=x app.js", "start", &["app.js"], json!({"name": "x"})),
            ("start app.js -n x -i -1", "start", &["app.js"], json!({"name": "x", "instances": "-1"})),
            ("start app.js -i max -x", "start", &["app.js"], json!({"instances": "max", "execute_command": true})),
            ("start app.js -i4", "start", &["app.js"], json!({"instances": "4"})),
            ("start app.js -fi max", "start", &["app.js"], json!({"force": true, "instances": "max"})),
            ("start a.js b.js --no-autorestart", "start", &["a.js", "b.js"], json!({"autorestart": false})),
            ("start a.js --watch", "start", &["a.js"], json!({"watch": true})),
            ("start a.js -l", "start", &["a.js"], json!({"log_file": true})),
            ("start a.js -l x.log", "start", &["a.js"], json!({"log_file": "x.log"})),
            ("restart a --node-args=--inspect", "restart", &["a"], json!({"node_args": "--inspect"})),
            ("restart a --node-args --inspect", "restart", &["a"], json!({"node_args": "--inspect"})),
            ("start a.js --name x --name y", "start", &["a.js"], json!({"name": "y"})),
            ("restart log", "restart", &["log"], json!({})),
            ("restart -", "restart", &["-"], json!({})),
            ("scale api -2", "scale", &["api", "-2"], json!({})),
            ("scale api +2", "scale", &["api", "+2"], json!({})),
        ] {
            let got = parsed(line);
            assert_eq!(got.verb.as_deref(), Some(verb), "{line}");
            assert_eq!(got.operands, operands, "{line}");
            assert_eq!(Value::Object(got.attributes), attributes, "{line}");
        }
    }

    #[test]
    fn a_line_of_bare_words_is_read_as_the_grammar_reads_it() {
        for line in [
            "",
            "ls",
            "stop a b",
            "start - x",
            "scale api +2",
            "stop a -- b --c",
        ] {
            let short = parsed(line);
            // The option, which changes nothing else, asks for the grammar.
            let long = parsed(&format!("--silent {line}"));
            assert_eq!(short.verb, long.verb, "{line}");
            assert_eq!(short.operands, long.operands, "{line}");
            assert_eq!(short.rest, long.rest, "{line}");
            assert_eq!(short.attributes, long.attributes, "{line}");
        }
    }

    #[test]
    fn what_follows_the_dashes_is_left_alone() {
        let got = parsed("start a.js --name x -- --name y -- z");
        assert_eq!(got.rest, Some(words("--name y -- z")));
        assert_eq!(got.attributes["name"], "x");
        assert_eq!(parsed("start a.js").rest, None);
        assert_eq!(parsed("start a.js --").rest, Some(Vec::new()));
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_pm2() {
        for (line, expected) in [
            ("start --foo", "unknown option `--foo'"),
            (
                "start --instnces 2",
                "unknown option `--instnces' (did you mean --instances?)",
            ),
            (
                "start a.js -i",
                "option `-i --instances <number>' argument missing",
            ),
        ] {
            assert_eq!(
                parse(&words(line)).unwrap_err().to_string(),
                expected,
                "{line}"
            );
        }
        let restart = verbs::find("restart").unwrap();
        let missing = check(restart, &parsed("restart")).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "missing required argument `id|name|namespace|all|json|stdin'"
        );
        let foreign = check(restart, &parsed("restart a --lines 3")).unwrap_err();
        assert_eq!(foreign.to_string(), "unknown option `--lines'");
    }

    #[test]
    fn a_mistyped_verb_is_recognised() {
        for (typed, meant) in [
            ("strat", "start"),
            ("resart", "restart"),
            ("lgos", "logs"),
            ("delte", "delete"),
            ("desribe", "describe"),
            ("stpo", "stop"),
        ] {
            assert_eq!(nearest_verb(typed), Some(meant), "{typed}");
        }
        assert_eq!(nearest_verb("frobnicate"), None);
    }
}
