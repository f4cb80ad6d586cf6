//! A full disk under the home: apps run on, verbs work, nothing saved is lost.

use crate::harness::Musher;
use std::process::Command;

/// Runs in a mount namespace of its own, because the home is a small tmpfs.
/// Prints one `key: value` line per fact.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=2m,mode=700 tmpfs "$MUSHER_HOME" || exit 77
fact() { echo "$1: $2"; }
field() { "$MUSHER" jlist 2>/dev/null | node -p "JSON.parse(require('fs').readFileSync(0))$1" 2>&1; }
"$MUSHER" start "$APP" --name one >/dev/null 2>&1; fact start $?
"$MUSHER" save >/dev/null 2>&1; fact save $?
dd if=/dev/zero of="$MUSHER_HOME/fill" bs=1k >/dev/null 2>&1
"$MUSHER" restart one >/dev/null 2>&1; fact restart $?
fact restarts "$(field '[0].pm2_env.restart_time')"
fact status "$(field '[0].pm2_env.status')"
"$MUSHER" save >"$OUT" 2>&1; fact full_save $?
fact full_save_says "$(grep -c -i 'no space' "$OUT")"
node -e "JSON.parse(require('fs').readFileSync(process.env.MUSHER_HOME + '/dump.pm2'))[0].name"; fact dump $?
rm "$MUSHER_HOME/fill"
"$MUSHER" restart one >/dev/null 2>&1; fact again $?
pid=$("$MUSHER" pid one)
kill -9 "$(cat "$MUSHER_HOME/pm2.pid")"
"$MUSHER" ping >/dev/null 2>&1; fact ping $?
fact same_pid "$([ "$("$MUSHER" pid one)" = "$pid" ] && echo yes)"
fact restarts_after "$(field '[0].pm2_env.restart_time')"
"$MUSHER" kill >/dev/null 2>&1; fact kill $?
"#;

#[test]
fn a_full_disk_under_the_home_loses_nothing() {
    let musher = Musher::new();
    std::fs::create_dir(musher.home()).expect("a mount point");
    let plain = musher.command(&[]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", SCRIPT]).env_clear();
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command
        .env("MUSHER", musher.program())
        .env("APP", Musher::app("silent.js"))
        .env("OUT", musher.cwd().join("out"))
        .current_dir(musher.cwd())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    if said.is_empty() {
        eprintln!("skipped: only root can mount: {output:?}");
        return;
    }
    let expected = "start: 0\nsave: 0\nrestart: 0\nrestarts: 1\nstatus: online\nfull_save: 1\n\
        full_save_says: 1\ndump: 0\nagain: 0\nping: 0\nsame_pid: yes\nrestarts_after: 2\nkill: 0\n";
    assert_eq!(said, expected, "{output:?}");
}
