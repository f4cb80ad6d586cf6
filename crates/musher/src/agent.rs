//! The agent's file: the script that Node apps are started with.
//!
//! Written once, when the daemon starts, and named after its content: apps of
//! a former version go on with theirs, because Node reads the file again for
//! each worker thread. It says nothing to the script and reads nothing from it.

use crate::files::{Durability, replace};
use crate::paths::Paths;
use musher_core::app::agent::Agent;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What Node loads before an app.
pub(crate) const SCRIPT: &str = include_str!("agent/agent.cjs");

/// Why apps are started without the agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// NODE_OPTIONS is text.
    #[error("the home {0} is not UTF-8, so Node cannot be told of a file in it")]
    Unspeakable(PathBuf),
    /// The file cannot be written.
    #[error("{path} cannot be written: {error}")]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

/// Puts the script into the home, unless it is there.
///
/// # Errors
/// [`AgentError`]; apps are then started without it.
pub(crate) fn install(paths: &Paths) -> Result<Agent, AgentError> {
    let path = paths.home.join(file_name());
    let Some(text) = path.to_str() else {
        return Err(AgentError::Unspeakable(paths.home.clone()));
    };
    let is_there = fs::read_to_string(&path).is_ok_and(|found| found == SCRIPT);
    if !is_there {
        let written = replace(&path, SCRIPT, Durability::Process);
        written.map_err(|error| AgentError::Unwritable {
            path: path.clone(),
            error,
        })?;
    }
    Ok(Agent {
        path: text.to_owned(),
        uid: musher_os::user::effective_uid(),
    })
}

/// Removes the scripts of former versions; only while no app runs that was
/// started with one.
pub(crate) fn remove_former(paths: &Paths) {
    let Ok(entries) = fs::read_dir(&paths.home) else {
        return;
    };
    let own = file_name();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_former = name
            .to_str()
            .is_some_and(|name| is_script(name) && name != own);
        if is_former {
            // One that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn file_name() -> String {
    let mut hasher = DefaultHasher::new();
    SCRIPT.hash(&mut hasher);
    format!("agent-{:016x}.cjs", hasher.finish())
}

/// True for a name that [`file_name`] may have given.
fn is_script(name: &str) -> bool {
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
    let hash = stem.and_then(|stem| stem.strip_prefix("agent-"));
    name.ends_with(".cjs")
        && hash.is_some_and(|hash| {
            hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Style;
    use musher_core::app::agent::{NODE_OPTIONS, with_agent};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_script_is_written_once_and_only_its_like_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_owned();
        let paths = Paths::find(Style::Musher, |name| {
            (name == "MUSHER_HOME").then(|| home.clone().into_os_string())
        });
        let agent = install(&paths).unwrap();
        let path = PathBuf::from(&agent.path);
        assert_eq!(fs::read_to_string(&path).unwrap(), SCRIPT);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let written = path.metadata().unwrap().modified().unwrap();
        fs::write(home.join("agent-0123456789abcdef.cjs"), "").unwrap();
        fs::write(home.join("agent-mine.cjs"), "").unwrap();
        assert_eq!(install(&paths).unwrap(), agent);
        assert_eq!(path.metadata().unwrap().modified().unwrap(), written);
        remove_former(&paths);
        let mut names: Vec<_> = fs::read_dir(&home)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut wanted = [file_name(), "agent-mine.cjs".to_owned()];
        wanted.sort();
        assert_eq!(names, wanted);
    }

    #[test]
    fn node_reads_a_path_with_spaces_quotes_and_backslashes() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a \"b\\ c'é");
        fs::create_dir(&home).unwrap();
        let path = home.join("agent-00.cjs");
        fs::write(&path, SCRIPT).unwrap();
        let node = std::env::var("MUSHER_TEST_NODE").unwrap_or_else(|_| "node".into());
        for own in [None, Some(""), Some("--title=\"a b\"")] {
            let options = with_agent(path.to_str().unwrap(), own);
            let print = "console.log(JSON.stringify('NODE_OPTIONS' in process.env ? process.env.NODE_OPTIONS : null))";
            let output = std::process::Command::new(&node)
                .args(["-e", print])
                .env(NODE_OPTIONS, options)
                .output()
                .unwrap();
            let seen: Option<String> = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
            assert_eq!(seen.as_deref(), own);
        }
    }
}
