//! What a declaration is resolved against, and this machine's answers.

use musher_core::app::interpreter::Content;
use musher_core::app::resolve::{Machine, User};
use std::cell::OnceCell;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes of a file that decide between a program and a text.
const SNIFFED_BYTES: u64 = 512;

/// The caller's surroundings.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// Absolute directory of the caller.
    pub(crate) cwd: String,
    /// The user's home directory.
    pub(crate) home: String,
    /// musher's home, as apps see it in `PM2_HOME`.
    pub(crate) pm2_home: String,
    /// Directory of log files.
    pub(crate) log_dir: String,
    /// Directory of pid files.
    pub(crate) pid_dir: String,
    /// The environment, in order.
    pub(crate) inherited: Vec<(String, String)>,
    /// Name of the calling user.
    pub(crate) username: String,
    /// The caller may become another user.
    pub(crate) is_root: bool,
    /// Answer of `node --version`, once asked.
    pub(crate) node: OnceCell<Option<(u32, u32)>>,
}

impl Environment {
    /// Returns the surroundings of this process. Variables that are no UTF-8
    /// are left out.
    ///
    /// # Errors
    /// The working directory is gone.
    pub(crate) fn of_process(
        pm2_home: &str,
        log_dir: &str,
        pid_dir: &str,
    ) -> std::io::Result<Environment> {
        let inherited: Vec<(String, String)> = std::env::vars_os()
            // What an app starts is a run of its own.
            .filter(|(name, _)| name != musher_os::kill::MARK)
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let get = |key: &str| {
            inherited
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, v)| v.clone())
        };
        let uid = rustix::process::geteuid();
        let entry = passwd(&uid.as_raw().to_string());
        let home = get("HOME").or_else(|| entry.as_ref().map(|(_, user)| user.home.clone()));
        Ok(Environment {
            cwd: std::env::current_dir()
                .map_err(gone)?
                .to_string_lossy()
                .into_owned(),
            home: home.unwrap_or_else(|| "/".to_owned()),
            pm2_home: pm2_home.to_owned(),
            log_dir: log_dir.to_owned(),
            pid_dir: pid_dir.to_owned(),
            username: entry.map_or_else(|| uid.as_raw().to_string(), |(name, _)| name),
            is_root: uid.is_root(),
            inherited,
            node: OnceCell::new(),
        })
    }
}

impl Machine for Environment {
    fn program(&self, name: &str) -> Option<String> {
        find_program(name, &self.inherited, Path::new(&self.cwd))
    }

    fn node_version(&self) -> Option<(u32, u32)> {
        *self.node.get_or_init(|| {
            let output = Command::new(self.program("node")?)
                .arg("--version")
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            let mut parts = text.trim().trim_start_matches('v').split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
    }

    fn file(&self, path: &str) -> Option<Content> {
        let metadata = std::fs::metadata(path).ok()?;
        if metadata.is_dir() {
            return None;
        }
        let mut head = Vec::new();
        if metadata.is_file()
            && let Ok(file) = std::fs::File::open(path)
        {
            // An unreadable file counts as text: exec will say why.
            let _ = file.take(SNIFFED_BYTES).read_to_end(&mut head);
        }
        if head.contains(&0) {
            return Some(Content::Binary);
        }
        let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Some(match String::from_utf8_lossy(first).strip_prefix("#!") {
            Some(line) => Content::Shebang(line.trim().to_owned()),
            None => Content::Text,
        })
    }

    fn user(&self, name: &str) -> Option<User> {
        passwd(name).map(|(_, user)| user)
    }

    fn group(&self, name: &str) -> Option<u32> {
        if let Ok(gid) = name.parse() {
            return Some(gid);
        }
        // group(5): name:password:gid:members.
        let groups = std::fs::read_to_string("/etc/group").ok()?;
        let line = groups
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(2)?.parse().ok()
    }

    fn cron_mistake(&self, pattern: &str) -> Option<String> {
        let parsed = pattern.parse::<croner::Cron>();
        parsed.err().map(|error| error.to_string())
    }
}

/// Returns the path of an executable in the PATH of `env`.
pub(super) fn find_program(name: &str, env: &[(String, String)], cwd: &Path) -> Option<String> {
    let executable = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let (_, path) = env.iter().find(|(key, _)| key == "PATH")?;
    std::env::split_paths(path)
        .map(|directory| cwd.join(directory).join(name))
        .find(|path| executable(path))
        .map(|path| path.to_string_lossy().into_owned())
}

/// Says what the bare error of getcwd(2) leaves out.
fn gone(error: std::io::Error) -> std::io::Error {
    let text =
        format!("the current directory cannot be used ({error}): `cd` to one that exists first");
    std::io::Error::new(error.kind(), text)
}

/// Returns name and user of a name or number.
fn passwd(wanted: &str) -> Option<(String, User)> {
    // passwd(5): name:password:uid:gid:comment:home:shell.
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
            return None;
        };
        if *name != wanted && *uid != wanted {
            return None;
        }
        let user = User {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: (*home).to_owned(),
        };
        Some(((*name).to_owned(), user))
    })
}
