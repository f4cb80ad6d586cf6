//! The service under a real systemd: a manager of a user in namespaces of its
//! own, in a cgroup of its own.
//!
//! It needs root and systemd; elsewhere nothing is tested, and that is said.

use crate::harness::{Musher, PATIENCE, Ran, wait_for};
use crate::startup::saved;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// Where cgroups may be mounted: v2 beside v1, systemd's own v1, v2 alone.
const CGROUP_ROOTS: [&str; 3] = [
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup",
];

/// A manager looks for the machine's before it starts.
const SCRIPT: &str = "\
for root in ROOTS; do
  if [ -e $root/cgroup.procs ]; then
    mkdir -p $root/$CGROUP && echo 0 > $root/$CGROUP/cgroup.procs
  fi
done
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system
/lib/systemd/systemd --user --log-target=console
";

struct Manager<'a> {
    musher: &'a Musher,
    outer: Child,
    cgroup: String,
}

impl Manager<'_> {
    /// Starts a manager; `None` where there can be none.
    fn start(musher: &Musher) -> Option<Manager<'_>> {
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if !is_root || !Path::new(SYSTEMD).exists() {
            return None;
        }
        let cgroup = format!("musher-e2e-{}", std::process::id());
        let runtime = musher.cwd().join("run");
        fs::create_dir(&runtime).expect("a directory");
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("a mode");
        let script = musher.write("go.sh", &SCRIPT.replace("ROOTS", &CGROUP_ROOTS.join(" ")));
        let outer = with_env(musher, "unshare")
            .args(["--pid", "--mount", "--fork", "--mount-proc", "--kill-child"])
            .arg("sh")
            .arg(script)
            .env("CGROUP", &cgroup)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let manager = Manager {
            musher,
            outer,
            cgroup,
        };
        let is_up = || (manager.systemctl(&["show", "-p", "Version"]).code == 0).then_some(());
        wait_for(PATIENCE, is_up)?;
        Some(manager)
    }

    fn systemctl(&self, words: &[&str]) -> Ran {
        self.run(&[&["systemctl", "--user"], words].concat())
    }

    /// Runs a command beside the manager.
    fn run(&self, words: &[&str]) -> Ran {
        let id = self.outer.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let first = children.unwrap_or_default().trim().to_owned();
        let output = with_env(self.musher, "nsenter")
            .args(["-t", &first, "-p", "-m"])
            .args(words)
            .output();
        Ran::from(output.expect("nsenter runs"))
    }

    fn musher(&self, words: &[&str]) -> Ran {
        let program = self.musher.program();
        self.run(&[&[program.to_str().expect("a path")], words].concat())
    }

    /// Waits until the unit is started with `n` restarts; returns its main pid.
    fn wait_active(&self, n: u32) -> String {
        let restarts = format!("NRestarts={n}");
        self.musher.wait("an active unit", || {
            let properties = "ActiveState,StatusText,NRestarts,MainPID";
            let said = self.systemctl(&["show", "apps", "-p", properties]).stdout;
            let has = |line: &str| said.lines().any(|own| own == line);
            let pid = said.lines().find_map(|line| line.strip_prefix("MainPID="));
            let is_up = has("ActiveState=active") && has(&restarts);
            (is_up && has("StatusText=the saved list is started"))
                .then(|| pid.expect("a main pid").to_owned())
        })
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        // The first process of the namespace goes with it, and takes all.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        for root in CGROUP_ROOTS {
            let own = Path::new(root).join(&self.cgroup);
            wait_for(PATIENCE, || remove_tree(&own));
        }
    }
}

/// Removes an empty tree of cgroups; its processes may still be ending.
fn remove_tree(own: &Path) -> Option<()> {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    (!own.exists() || fs::remove_dir(own).is_ok()).then_some(())
}

fn with_env(musher: &Musher, program: &str) -> Command {
    let mut command = Command::new(program);
    let own = musher.command(&[]);
    let vars = own.get_envs();
    command
        .env_clear()
        .envs(vars.filter_map(|(key, value)| Some((key, value?))))
        .env("XDG_CONFIG_HOME", musher.cwd().join("config"))
        .env("XDG_RUNTIME_DIR", musher.cwd().join("run"))
        .stdin(Stdio::null());
    command
}

#[test]
fn systemd_starts_reloads_restarts_and_stops_the_service() {
    let musher = saved();
    let Some(manager) = Manager::start(&musher) else {
        eprintln!("no systemd can be started here: nothing is tested");
        return;
    };
    let words = ["systemd-user", "--service-name", "apps"];
    let installed = manager.musher(&[&["startup"], &words[..]].concat());
    assert_eq!(installed.code, 0, "{}", installed.stderr);
    assert_eq!(manager.systemctl(&["start", "--no-block", "apps"]).code, 0);
    let keeper = manager.wait_active(0);
    let pids = musher.pids("web");
    assert_eq!(pids.len(), 2, "{}", musher.evidence());

    assert_eq!(manager.systemctl(&["reload", "apps"]).code, 0);
    let reloaded = musher.pids("web");
    assert!(reloaded.iter().all(|pid| !pids.contains(pid)));
    assert_eq!(manager.wait_active(0), keeper);

    manager.run(&["kill", "-KILL", &keeper]);
    assert_ne!(manager.wait_active(1), keeper);
    musher.wait_status("web", 2, "online");
    let mut pids = musher.pids("web");
    pids.extend(musher.pids("job"));
    assert_eq!(pids.len(), 3);

    let removed = manager.musher(&[&["unstartup"], &words[..]].concat());
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    for pid in pids {
        let probe = manager.run(&["kill", "-0", &pid.to_string()]);
        assert_ne!(probe.code, 0, "{pid}\n{}", musher.evidence());
    }
    let state = manager.systemctl(&["show", "apps", "-p", "LoadState"]);
    assert_eq!(state.stdout, "LoadState=not-found\n");
}
