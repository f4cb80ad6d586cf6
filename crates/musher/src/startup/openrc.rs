//! A service for OpenRC, under its supervisor.
//!
//! `supervise-daemon` keeps the keeper in the foreground and starts it again,
//! as systemd does. It has no word for "started"; apps follow.

use super::{Facts, Plan, argv, shell_word};

/// Seconds between SIGKILL and giving up.
const KILL_SECS: u64 = 5;

/// Returns the plan.
pub(super) fn plan(facts: &Facts) -> Plan {
    let service = facts.service.as_str();
    Plan {
        path: format!("/etc/init.d/{service}").into(),
        text: script(facts),
        mode: 0o755,
        enable: vec![argv(&["rc-update", "add", service, "default"])],
        disable: vec![
            argv(&["rc-service", "--ifstarted", service, "stop"]),
            argv(&["rc-update", "del", service, "default"]),
        ],
        forget: Vec::new(),
    }
}

fn script(facts: &Facts) -> String {
    let word = |text: &str| shell_word(text);
    // The value is split again by the shell of OpenRC, hence quoted twice.
    let arguments = word(&format!("boot --home {}", word(&facts.home)));
    let need = if facts.waits_for_network {
        "need net"
    } else {
        "after net"
    };
    format!(
        r#"#!/sbin/openrc-run
# Written by `musher startup`, removed by `musher unstartup`.

description={description}
supervisor=supervise-daemon
command={exe}
command_args={arguments}
command_user={user}
respawn_delay=1
retry=TERM/{stop}/KILL/{KILL_SECS}
extra_started_commands=reload
export PATH={path}
export MUSHER_HOME={home}

depend() {{
	{need}
	after localmount
}}

reload() {{
	ebegin "Reloading apps"
	{as_user}{exe} reload all
	eend $?
}}
"#,
        description = word(&format!("Apps of {}, kept by musher", facts.user)),
        exe = word(&facts.exe),
        user = word(&facts.user),
        stop = facts.stop_secs(),
        path = word(&facts.path),
        home = word(&facts.home),
        as_user = super::sysv::as_user(facts),
    )
}
