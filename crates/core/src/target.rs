//! What a person names: an id, a name, a namespace, a `/regex/` or `all`.
//!
//! [`Target::parse`] understands the word, [`Target::select`] finds the
//! processes it means, in PM2's order of interpretation. Config files and `-`
//! are recognised before, by whoever reads files; expressions are matched by
//! the caller, because the core knows no regular expressions.

use crate::id::PmId;

/// A word that names processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `all`: every process that is no module.
    All,
    /// `/text/`: every name the expression, slashes dropped, matches somewhere.
    Regex(String),
    /// Digits: a name, else a namespace, else an id.
    Number {
        /// The word.
        word: String,
        /// The id, unless it is larger than any id.
        id: Option<PmId>,
    },
    /// Any other word: a name or the path of a script, else a namespace.
    Name {
        /// The word.
        word: String,
        /// The word as an absolute path.
        path: String,
    },
}

/// What is known of a process that may be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The slot.
    pub id: PmId,
    /// App name.
    pub name: &'a str,
    /// PM2's namespace.
    pub namespace: &'a str,
    /// Absolute path of the script.
    pub exec_path: &'a str,
    /// Modules are not part of `all`.
    pub is_module: bool,
}

/// Why a word means nothing; PM2's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `all` or an expression without a process; PM2 prints it as a warning.
    #[error("No process found")]
    NoneFound,
    /// A word nobody has.
    #[error("Process or Namespace {0} not found")]
    NotFound(String),
    /// An expression that is none.
    #[error("Invalid regular expression: /{pattern}/: {reason}")]
    BadRegex {
        /// The expression without slashes.
        pattern: String,
        /// What the matcher says.
        reason: String,
    },
}

/// Says whether a pattern matches somewhere in a name, or why it is none.
pub type Matches<'a> = &'a dyn Fn(&str, &str) -> Result<bool, String>;

impl Target {
    /// Returns the target a word means; `cwd` is the absolute directory that
    /// relative paths start from. Paths are resolved by their text alone.
    pub fn parse(word: &str, cwd: &str) -> Target {
        if word == "all" {
            return Target::All;
        }
        // A single slash would be an expression that means everybody.
        if word.len() > 1 && word.starts_with('/') && word.ends_with('/') {
            return Target::Regex(word.replace('/', ""));
        }
        let word = word.to_owned();
        if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) {
            let id = word.parse().ok().map(PmId);
            return Target::Number { word, id };
        }
        let path = resolve(&word, cwd);
        Target::Name { word, path }
    }

    /// Returns the ids meant among `candidates`, in their order. A number that
    /// is no name and no namespace is returned as an id whether or not it
    /// exists: the daemon's own words about an unknown id are PM2's.
    ///
    /// # Errors
    ///
    /// [`TargetError`] when nobody is meant or the expression is broken.
    pub fn select(
        &self,
        candidates: &[Candidate<'_>],
        matches: Matches<'_>,
    ) -> Result<Vec<PmId>, TargetError> {
        match self {
            Target::All => {
                let ids = ids(candidates, |candidate| !candidate.is_module);
                ids.ok_or(TargetError::NoneFound)
            }
            Target::Regex(pattern) => by_regex(pattern, candidates, matches),
            Target::Number { word, id } => by_name(word, None, candidates)
                .or_else(|| id.map(|id| vec![id]))
                .ok_or_else(|| TargetError::NotFound(word.clone())),
            Target::Name { word, path } => by_name(word, Some(path), candidates)
                .ok_or_else(|| TargetError::NotFound(word.clone())),
        }
    }
}

fn by_regex(
    pattern: &str,
    candidates: &[Candidate<'_>],
    matches: Matches<'_>,
) -> Result<Vec<PmId>, TargetError> {
    let mut found = Vec::new();
    for candidate in candidates {
        let is_match =
            matches(pattern, candidate.name).map_err(|reason| TargetError::BadRegex {
                pattern: pattern.to_owned(),
                reason,
            })?;
        if is_match {
            found.push(candidate.id);
        }
    }
    if found.is_empty() {
        return Err(TargetError::NoneFound);
    }
    Ok(found)
}

fn by_name(word: &str, path: Option<&str>, candidates: &[Candidate<'_>]) -> Option<Vec<PmId>> {
    let is_named = |candidate: &Candidate<'_>| {
        candidate.name == word || path.is_some_and(|path| candidate.exec_path == path)
    };
    ids(candidates, is_named).or_else(|| ids(candidates, |candidate| candidate.namespace == word))
}

/// The ids of those that are wanted; `None` if there are none.
fn ids(
    candidates: &[Candidate<'_>],
    is_wanted: impl Fn(&Candidate<'_>) -> bool,
) -> Option<Vec<PmId>> {
    let wanted = candidates.iter().filter(|candidate| is_wanted(candidate));
    let ids: Vec<PmId> = wanted.map(|candidate| candidate.id).collect();
    (!ids.is_empty()).then_some(ids)
}

/// The absolute path of `path` without `.` and `..`, as Node's `path.resolve`.
fn resolve(path: &str, cwd: &str) -> String {
    let full = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{cwd}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(pattern: &str, name: &str) -> Result<bool, String> {
        if pattern == "(" {
            return Err("unterminated group".to_owned());
        }
        Ok(name.contains(pattern))
    }

    const fn candidate(
        id: u32,
        name: &'static str,
        namespace: &'static str,
        exec_path: &'static str,
    ) -> Candidate<'static> {
        Candidate {
            id: PmId(id),
            name,
            namespace,
            exec_path,
            is_module: false,
        }
    }

    fn candidates() -> Vec<Candidate<'static>> {
        let module = Candidate {
            is_module: true,
            ..candidate(9, "logrotate", "mods", "/m/l.js")
        };
        vec![
            candidate(0, "api", "default", "/srv/api.js"),
            candidate(1, "api", "web", "/srv/api.js"),
            candidate(2, "web", "x", "/srv/web.js"),
            candidate(3, "7", "default", "/srv/seven.js"),
            candidate(4, "worker", "42", "/srv/api.js"),
            module,
        ]
    }

    #[track_caller]
    fn check(word: &str, expected: Result<&[u32], &str>) {
        let found = Target::parse(word, "/srv/sub").select(&candidates(), &contains);
        let found = found
            .map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>())
            .map_err(|error| error.to_string());
        let expected = expected.map(<[u32]>::to_vec).map_err(str::to_owned);
        assert_eq!(found, expected, "{word}");
    }

    #[test]
    fn words_mean_what_pm2_takes_them_for() {
        check("all", Ok(&[0, 1, 2, 3, 4]));
        check("/ap/", Ok(&[0, 1]));
        check("//a/p/", Ok(&[0, 1]));
        check("/", Err("Process or Namespace / not found"));
        check("/zz/", Err("No process found"));
        check(
            "/(/",
            Err("Invalid regular expression: /(/: unterminated group"),
        );
        check("api", Ok(&[0, 1]));
        check("web", Ok(&[2]));
        check("default", Ok(&[0, 3]));
        check("../api.js", Ok(&[0, 1, 4]));
        check("/srv/./web.js", Ok(&[2]));
        check("logrotate", Ok(&[9]));
        check("7", Ok(&[3]));
        check("42", Ok(&[4]));
        check("2", Ok(&[2]));
        check("77", Ok(&[77]));
        check("nobody", Err("Process or Namespace nobody not found"));
        check(
            "99999999999",
            Err("Process or Namespace 99999999999 not found"),
        );
    }

    #[test]
    fn all_of_nothing_is_no_process_found() {
        let found = Target::All.select(&[], &contains);
        assert_eq!(found, Err(TargetError::NoneFound));
    }

    /// The order of interpretation, written down once more as plainly as possible.
    fn naive(word: &str, candidates: &[Candidate<'_>]) -> Vec<u32> {
        let pick = |test: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<u32> {
            let mut ids = Vec::new();
            for candidate in candidates {
                if test(candidate) {
                    ids.push(candidate.id.0);
                }
            }
            ids
        };
        if word == "all" {
            return pick(&|c| !c.is_module);
        }
        let is_number = word.parse::<u32>().is_ok();
        let path = format!("/srv/{word}");
        let named = pick(&|c| c.name == word || (!is_number && c.exec_path == path));
        if !named.is_empty() {
            return named;
        }
        let spaced = pick(&|c| c.namespace == word);
        if !spaced.is_empty() {
            return spaced;
        }
        word.parse().ok().into_iter().collect()
    }

    proptest! {
        #[test]
        fn selection_agrees_with_a_naive_model(
            word in "all|[ab1]{1,2}",
            rows in prop::collection::vec(("[ab1]{1,2}", "[ab1]{1,2}", "[ab1]", any::<bool>()), 0..6),
        ) {
            let paths: Vec<String> = rows.iter().map(|row| format!("/srv/{}", row.2)).collect();
            let candidates: Vec<Candidate<'_>> = rows
                .iter()
                .zip(&paths)
                .enumerate()
                .map(|(i, ((name, namespace, _, is_module), exec_path))| Candidate {
                    id: PmId(i as u32),
                    name,
                    namespace,
                    exec_path,
                    is_module: *is_module,
                })
                .collect();
            let found = Target::parse(&word, "/srv").select(&candidates, &contains);
            let found: Vec<u32> = found.unwrap_or_default().iter().map(|id| id.0).collect();
            prop_assert_eq!(found, naive(&word, &candidates));
        }
    }
}
