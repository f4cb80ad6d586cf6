//! Who called: environment and directory, read when first asked for.
//!
//! Most commands need neither, and scripts call them in loops.

use std::cell::OnceCell;
use std::ffi::OsString;

/// The surroundings of the caller.
#[derive(Debug, Default)]
pub(super) struct Caller {
    env: OnceCell<Vec<(String, String)>>,
    cwd: OnceCell<String>,
}

impl Caller {
    /// Returns a caller that is not this process's.
    #[cfg(test)]
    pub(super) fn fake(env: Vec<(String, String)>, cwd: String) -> Caller {
        Caller {
            env: env.into(),
            cwd: cwd.into(),
        }
    }

    /// Returns the environment, in order, without the mark of a run: what an
    /// app starts by musher is a run of its own.
    pub(super) fn env(&self) -> &[(String, String)] {
        self.env.get_or_init(|| {
            let text = |os: OsString| os.to_string_lossy().into_owned();
            std::env::vars_os()
                .filter(|(key, _)| key != musher_os::kill::MARK)
                .map(|(key, value)| (text(key), text(value)))
                .collect()
        })
    }

    /// Returns the value of a variable, unless it is empty.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        let found = self.env().iter().find(|(key, _)| key == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns the directory; `/` when it is gone.
    pub(super) fn cwd(&self) -> &str {
        self.cwd.get_or_init(|| {
            let cwd = std::env::current_dir().map(|path| path.display().to_string());
            cwd.unwrap_or_else(|_| "/".to_owned())
        })
    }
}
