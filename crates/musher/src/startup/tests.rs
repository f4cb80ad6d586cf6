//! Plans as texts, and what hostile facts do to them.

use super::*;
use std::process::Command;

/// Characters that mean something to one of the formats.
const HOSTILE: &str = r#"/home/o'br"ien/50% $HOME \n &<b>;`id`"#;

fn facts() -> Facts {
    Facts {
        service: "musher-deploy".to_owned(),
        user: "deploy".to_owned(),
        is_root: false,
        user_home: "/home/deploy".to_owned(),
        config_home: "/home/deploy/.config".to_owned(),
        home: "/home/deploy/.musher".to_owned(),
        exe: "/usr/local/bin/musher".to_owned(),
        path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
        waits_for_network: false,
        kill_timeout_ms: 0,
        is_booted: true,
    }
}

fn text(init: Init, facts: &Facts) -> String {
    init.plan(facts).unwrap().text
}

fn lines(commands: &[Argv]) -> Vec<String> {
    commands.iter().map(|command| command.join(" ")).collect()
}

#[test]
fn the_first_program_in_pm2s_order_decides() {
    for (there, expected) in [
        (&["launchctl", "systemctl"][..], Some(Init::Systemd)),
        (&["chkconfig", "update-rc.d"], Some(Init::Upstart)),
        (&["rc-update", "chkconfig"], Some(Init::Systemv)),
        (&["launchctl", "rc-update"], Some(Init::Openrc)),
        (&["launchctl"], Some(Init::Launchd)),
        (&["sysrc", "svcadm"], None),
        (&[], None),
    ] {
        let got = Init::detect(|program| there.contains(&program));
        assert_eq!(got, expected, "{there:?}");
    }
}

#[test]
fn every_name_is_a_word_and_so_are_pm2s() {
    for (_, init) in PROGRAMS {
        assert_eq!(Init::of_word(init.name()), Some(init));
    }
    for (word, expected) in [
        ("systemd-user", Some(Init::SystemdUser)),
        ("ubuntu", Some(Init::Systemd)),
        ("ubuntu14", Some(Init::Upstart)),
        ("amazon", Some(Init::Systemv)),
        ("darwin", Some(Init::Launchd)),
        ("freebsd", None),
        ("Systemd", None),
    ] {
        assert_eq!(Init::of_word(word), expected, "{word}");
    }
}

#[test]
fn a_unit_of_the_machine_in_full() {
    let expected = "\
# Written by `musher startup`, removed by `musher unstartup`.
# Change it with `systemctl edit musher-deploy`: a drop-in is kept.
[Unit]
Description=Apps of deploy, kept by musher
After=network.target

[Service]
User=deploy
Type=notify
NotifyAccess=all
Environment=PATH=/usr/local/bin:/usr/bin:/bin
Environment=MUSHER_HOME=/home/deploy/.musher
ExecStart=/usr/local/bin/musher boot --home /home/deploy/.musher
ExecReload=/usr/local/bin/musher reload all
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=75
TimeoutStartSec=3600
TimeoutStopSec=90
KillMode=mixed
OOMPolicy=continue
Delegate=yes
FileDescriptorStoreMax=16384
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
# An app that calls sudo or another setuid program needs `no` here.
NoNewPrivileges=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
";
    assert_eq!(text(Init::Systemd, &facts()), expected);
}

#[test]
fn a_unit_follows_its_facts() {
    let has = |facts: &Facts, init, line: &str| text(init, facts).lines().any(|own| own == line);
    let root = Facts {
        is_root: true,
        ..facts()
    };
    assert!(!has(&root, Init::Systemd, "NoNewPrivileges=yes"));
    assert!(!has(&root, Init::Systemd, "ProtectSystem=full"));
    let waiting = Facts {
        waits_for_network: true,
        ..facts()
    };
    for line in ["Wants=network-online.target", "After=network-online.target"] {
        assert!(has(&waiting, Init::Systemd, line), "{line}");
    }
    let patient = Facts {
        kill_timeout_ms: 120_001,
        ..facts()
    };
    assert!(has(&patient, Init::Systemd, "TimeoutStopSec=151"));
    let elsewhere = Facts {
        home: "/etc/.musher".to_owned(),
        ..facts()
    };
    assert!(has(
        &elsewhere,
        Init::Systemd,
        "ReadWritePaths=/etc/.musher"
    ));
    let user = facts();
    assert!(has(&user, Init::SystemdUser, "WantedBy=default.target"));
    for absent in ["User=deploy", "ProtectSystem=full", "After=network.target"] {
        assert!(!has(&user, Init::SystemdUser, absent), "{absent}");
    }
}

#[test]
fn each_init_system_has_its_file_and_commands() {
    let unit = Init::Systemd.plan(&facts()).unwrap();
    let path = "/etc/systemd/system/musher-deploy.service";
    assert_eq!(unit.path.to_str(), Some(path));
    assert_eq!(
        lines(&unit.enable),
        ["systemctl daemon-reload", "systemctl enable musher-deploy"]
    );
    assert_eq!(
        lines(&unit.disable),
        [
            "systemctl stop musher-deploy",
            "systemctl disable musher-deploy"
        ]
    );
    assert_eq!(lines(&unit.forget), ["systemctl daemon-reload"]);
    let image = Facts {
        is_booted: false,
        ..facts()
    };
    let unit = Init::SystemdUser.plan(&image).unwrap();
    let path = "/home/deploy/.config/systemd/user/musher-deploy.service";
    assert_eq!(unit.path.to_str(), Some(path));
    assert_eq!(
        lines(&unit.enable),
        ["systemctl --user enable musher-deploy"]
    );
    for (init, path, mode, enable) in [
        (
            Init::Upstart,
            "/etc/init.d/musher-deploy",
            0o755,
            "update-rc.d musher-deploy defaults",
        ),
        (
            Init::Systemv,
            "/etc/init.d/musher-deploy",
            0o755,
            "chkconfig --add musher-deploy",
        ),
        (
            Init::Openrc,
            "/etc/init.d/musher-deploy",
            0o755,
            "rc-update add musher-deploy default",
        ),
        (
            Init::Launchd,
            "/Library/LaunchDaemons/musher-deploy.plist",
            0o644,
            "launchctl load -w /Library/LaunchDaemons/musher-deploy.plist",
        ),
    ] {
        let plan = init.plan(&facts()).unwrap();
        assert_eq!(plan.path.to_str(), Some(path));
        assert_eq!(plan.mode, mode, "{init:?}");
        assert_eq!(lines(&plan.enable)[0], enable);
    }
}

#[test]
fn hostile_paths_are_read_literally_by_systemd_and_launchd() {
    let hostile = Facts {
        home: HOSTILE.to_owned(),
        ..facts()
    };
    let unit = text(Init::Systemd, &hostile);
    let escaped = r#"/home/o'br\"ien/50%% $HOME \\n &<b>;`id`"#;
    for line in [
        format!("Environment=\"MUSHER_HOME={escaped}\""),
        format!("ExecStart=:/usr/local/bin/musher boot --home \"{escaped}\""),
    ] {
        assert!(unit.lines().any(|own| own == line), "{line}\n{unit}");
    }
    let list = text(Init::Launchd, &hostile);
    let escaped = r#"<string>/home/o'br"ien/50% $HOME \n &amp;&lt;b&gt;;`id`</string>"#;
    assert_eq!(list.matches(escaped).count(), 2, "{list}");
}

#[test]
fn hostile_paths_are_read_literally_by_shells() {
    let scratch = tempfile::tempdir().unwrap();
    let facts = Facts {
        home: HOSTILE.to_owned(),
        // It prints what the script makes of its facts.
        exe: "/usr/bin/env".to_owned(),
        is_root: true,
        ..facts()
    };
    for init in [Init::Upstart, Init::Systemv, Init::Openrc] {
        let script = scratch.path().join(init.name());
        std::fs::write(&script, text(init, &facts)).unwrap();
        let is_right = Command::new("sh").arg("-n").arg(&script).status().unwrap();
        assert!(is_right.success(), "{init:?}");
    }
    let script = text(Init::Systemv, &facts).replace("musher list", "musher printenv MUSHER_HOME");
    let said = Command::new("sh")
        .args(["-c", &script, "sh", "status"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        format!("{HOSTILE}\n")
    );
    // OpenRC's shell splits the arguments once more.
    let script = text(Init::Openrc, &facts);
    let script = format!("{script}\neval \"set -- $command_args\"; printf '%s|' \"$@\"");
    let said = Command::new("sh").args(["-c", &script]).output().unwrap();
    let expected = format!("boot|--home|{HOSTILE}|");
    assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
}

#[test]
fn what_no_file_can_hold_is_refused() {
    let broken = Facts {
        home: "/home/a\nExecStart=/bin/evil".to_owned(),
        ..facts()
    };
    let refused = Init::Systemd.plan(&broken).unwrap_err().to_string();
    assert!(refused.starts_with("the home \"/home/a\\n"), "{refused}");
    for name in ["", "../evil", "a b", ".hidden", "-x", "a\n"] {
        let named = Facts {
            service: name.to_owned(),
            ..facts()
        };
        let refused = Init::Systemd.plan(&named).unwrap_err();
        assert_eq!(refused, FactError::ServiceName(name.to_owned()));
    }
    for exe in ["/a\"b/musher", "/a'b/musher", r"/a\b/musher"] {
        let linked = Facts {
            exe: exe.to_owned(),
            ..facts()
        };
        let refused = Init::Systemd.plan(&linked).unwrap_err();
        assert_eq!(refused, FactError::Executable(exe.to_owned()));
        assert!(Init::Openrc.plan(&linked).is_ok());
    }
}
