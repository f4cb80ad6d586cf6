//! Units for systemd.
//!
//! The keeper is the main process and stays in the foreground: a stop reaches
//! it as SIGTERM, which it hands to the daemon, and that ends every app with
//! its own patience. Only what is left then is killed (`KillMode=mixed`).
//!
//! - `Type=notify`: the unit is started when the saved list is, and an order
//!   after it means that apps run.
//! - `OOMPolicy=continue`: one process killed for memory is restarted by the
//!   daemon, and does not stop all apps.
//! - `Restart=on-failure`: `musher kill` ends the unit, a crash does not.
//! - Hardening only for a user that is not root: a daemon of root is there to
//!   run apps as other users, which may write to `/etc` or raise rights.
//! - It stays away from options that would change what apps see of the
//!   machine (`PrivateTmp`, `ProtectHome`, system call filters).

use super::{FactError, Facts, Plan, argv, boot};
use std::path::Path;

/// Seconds a start may take: as long as a client waits for the daemon. Ten
/// thousand apps that wait for `listening` one by one are no failure.
const START_SECS: u64 = 3600;

/// Descriptors systemd keeps for a unit: those of the keeper's table.
const MAX_STORED_FDS: u32 = 16_384;

/// Directories `ProtectSystem=full` makes read-only (systemd.exec(5)).
const PROTECTED: [&str; 4] = ["/usr", "/boot", "/efi", "/etc"];

/// Returns the plan for the machine's manager.
///
/// # Errors
/// [`FactError::Executable`].
pub(super) fn system(facts: &Facts) -> Result<Plan, FactError> {
    let path = format!("/etc/systemd/system/{}.service", facts.service);
    let text = unit(facts, Scope::Machine);
    plan(facts, path, text, &["systemctl"])
}

/// Returns the plan for the manager of one user.
///
/// # Errors
/// [`FactError::Executable`].
pub(super) fn of_user(facts: &Facts) -> Result<Plan, FactError> {
    let (directory, service) = (&facts.config_home, &facts.service);
    let path = format!("{directory}/systemd/user/{service}.service");
    let text = unit(facts, Scope::User);
    plan(facts, path, text, &["systemctl", "--user"])
}

/// Whose manager reads the unit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Machine,
    User,
}

fn plan(facts: &Facts, path: String, text: String, systemctl: &[&str]) -> Result<Plan, FactError> {
    // Seen with systemd 252; systemd.service(5) does not say so.
    if facts.exe.contains(['"', '\'', '\\']) {
        return Err(FactError::Executable(facts.exe.clone()));
    }
    let command = |words: &[&str]| argv(&[systemctl, words].concat());
    // Without a running manager there is nothing to tell, but links count.
    let told = |words: &[&str]| facts.is_booted.then(|| command(words));
    let service = facts.service.as_str();
    Ok(Plan {
        path: path.into(),
        text,
        mode: 0o644,
        enable: told(&["daemon-reload"])
            .into_iter()
            .chain([command(&["enable", service])])
            .collect(),
        disable: told(&["stop", service])
            .into_iter()
            .chain([command(&["disable", service])])
            .collect(),
        forget: told(&["daemon-reload"]).into_iter().collect(),
    })
}

fn unit(facts: &Facts, scope: Scope) -> String {
    let mut lines = vec![
        "# Written by `musher startup`, removed by `musher unstartup`.".to_owned(),
        format!(
            "# Change it with `systemctl edit {}`: a drop-in is kept.",
            facts.service
        ),
        "[Unit]".to_owned(),
        format!(
            "Description=Apps of {}, kept by musher",
            specifiers(&facts.user)
        ),
    ];
    // A user's manager has no network targets.
    match (scope, facts.waits_for_network) {
        (Scope::Machine, true) => {
            lines.push("Wants=network-online.target".to_owned());
            lines.push("After=network-online.target".to_owned());
        }
        (Scope::Machine, false) => lines.push("After=network.target".to_owned()),
        (Scope::User, _) => {}
    }
    lines.extend([String::new(), "[Service]".to_owned()]);
    if scope == Scope::Machine {
        lines.push(format!("User={}", specifiers(&facts.user)));
    }
    lines.extend(service(facts));
    lines.extend(hardening(facts, scope));
    let target = match scope {
        Scope::Machine => "multi-user.target",
        Scope::User => "default.target",
    };
    lines.extend([
        String::new(),
        "[Install]".to_owned(),
        format!("WantedBy={target}"),
        String::new(),
    ]);
    lines.join("\n")
}

fn service(facts: &Facts) -> Vec<String> {
    let exe = facts.exe.as_str();
    vec![
        "Type=notify".to_owned(),
        "NotifyAccess=all".to_owned(),
        format!("Environment={}", quoted(&format!("PATH={}", facts.path))),
        format!(
            "Environment={}",
            quoted(&format!("MUSHER_HOME={}", facts.home))
        ),
        command("ExecStart", &[exe, "boot", "--home", &facts.home]),
        command("ExecReload", &[exe, "reload", "all"]),
        "Restart=on-failure".to_owned(),
        "RestartSec=1".to_owned(),
        format!("RestartPreventExitStatus={}", boot::BUSY_EXIT),
        format!("TimeoutStartSec={START_SECS}"),
        format!("TimeoutStopSec={}", facts.stop_secs()),
        "KillMode=mixed".to_owned(),
        "OOMPolicy=continue".to_owned(),
        "Delegate=yes".to_owned(),
        format!("FileDescriptorStoreMax={MAX_STORED_FDS}"),
        "LimitNOFILE=infinity".to_owned(),
        "LimitNPROC=infinity".to_owned(),
        "LimitCORE=infinity".to_owned(),
    ]
}

fn hardening(facts: &Facts, scope: Scope) -> Vec<String> {
    if facts.is_root {
        return Vec::new();
    }
    let mut lines = vec![
        "# An app that calls sudo or another setuid program needs `no` here.".to_owned(),
        "NoNewPrivileges=yes".to_owned(),
    ];
    if scope == Scope::User {
        // Mounts of its own need a user namespace, which changes what apps see.
        return lines;
    }
    lines.push("ProtectSystem=full".to_owned());
    let home = Path::new(&facts.home);
    if PROTECTED
        .iter()
        .any(|directory| home.starts_with(directory))
    {
        lines.push(format!("ReadWritePaths={}", quoted(&facts.home)));
    }
    lines
}

/// Returns `key=` with a command line. The colon leaves `$` alone
/// (systemd.service(5)); older systemd does not know it, so it stands there
/// only where it is needed.
fn command(key: &str, words: &[&str]) -> String {
    let colon = if words.iter().any(|word| word.contains('$')) {
        ":"
    } else {
        ""
    };
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("{key}={colon}{}", words.join(" "))
}

/// Returns a word as systemd reads it literally (systemd.syntax(7)).
fn quoted(word: &str) -> String {
    let word = specifiers(word);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if word.chars().all(is_plain) {
        return word;
    }
    format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
}

/// Returns a text without specifiers (systemd.unit(5)).
fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}
