//! Init scripts, for machines with neither systemd nor OpenRC.
//!
//! Nobody watches here, so the daemon detaches as it does from a shell, and
//! the keeper is what starts it again.

use super::{Argv, Facts, Plan, argv, shell_word};

/// Returns the plan for Debian's links.
pub(super) fn with_update_rc(facts: &Facts) -> Plan {
    let service = facts.service.as_str();
    plan(
        facts,
        vec![argv(&["update-rc.d", service, "defaults"])],
        vec![argv(&["update-rc.d", service, "disable"])],
        vec![argv(&["update-rc.d", service, "remove"])],
    )
}

/// Returns the plan for Red Hat's links.
pub(super) fn with_chkconfig(facts: &Facts) -> Plan {
    let service = facts.service.as_str();
    plan(
        facts,
        vec![
            argv(&["chkconfig", "--add", service]),
            argv(&["chkconfig", service, "on"]),
        ],
        vec![
            argv(&["chkconfig", service, "off"]),
            argv(&["chkconfig", "--del", service]),
        ],
        Vec::new(),
    )
}

fn plan(facts: &Facts, enable: Vec<Argv>, links: Vec<Argv>, forget: Vec<Argv>) -> Plan {
    let path = format!("/etc/init.d/{}", facts.service);
    let mut disable = vec![argv(&[&path, "stop"])];
    disable.extend(links);
    Plan {
        path: path.into(),
        text: script(facts),
        mode: 0o755,
        enable,
        disable,
        forget,
    }
}

/// Returns the words that make a command run as the user, with a blank at the
/// end; nothing for root.
pub(super) fn as_user(facts: &Facts) -> String {
    if facts.is_root {
        String::new()
    } else {
        format!("runuser -u {} -- ", shell_word(&facts.user))
    }
}

fn script(facts: &Facts) -> String {
    let network = if facts.waits_for_network {
        "$network $named"
    } else {
        "$network"
    };
    format!(
        r#"#!/bin/sh
# chkconfig: 2345 98 02
### BEGIN INIT INFO
# Provides:          {service}
# Required-Start:    $local_fs $remote_fs {network}
# Required-Stop:     $local_fs $remote_fs $network
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: apps kept by musher
### END INIT INFO
# Written by `musher startup`, removed by `musher unstartup`.

PATH={path}
MUSHER_HOME={home}
export PATH MUSHER_HOME

musher() {{
	{as_user}{exe} "$@"
}}

case "$1" in
start) musher resurrect ;;
stop) musher kill ;;
restart | force-reload)
	musher kill
	musher resurrect
	;;
reload) musher reload all ;;
status) musher list ;;
*)
	echo "Usage: $0 {{start|stop|restart|force-reload|reload|status}}" >&2
	exit 3
	;;
esac
"#,
        service = facts.service,
        path = shell_word(&facts.path),
        home = shell_word(&facts.home),
        as_user = as_user(facts),
        exe = shell_word(&facts.exe),
    )
}
