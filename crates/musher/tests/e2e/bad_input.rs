//! Bad input: a clear error with the next step, PM2's exit code, nothing lost.

use crate::harness::{Musher, free_port};

#[test]
fn a_missing_script_is_named() {
    let musher = Musher::new();
    let ran = musher.run(&["start", "nope.js"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("Script not found"), "{}", ran.stderr);
    assert!(ran.stderr.contains("nope.js"), "{}", ran.stderr);
    assert!(musher.list().is_empty());
}

#[test]
fn a_bad_interpreter_is_named() {
    let musher = Musher::new();
    let script = Musher::app("tick.js");
    let ran = musher.run(&["start", &script, "--interpreter", "no-such-interpreter"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no-such-interpreter"), "{}", ran.stderr);
    assert!(musher.list().is_empty());
}

#[test]
fn every_mistake_of_a_config_is_told_and_nothing_starts() {
    let musher = Musher::new();
    let good = Musher::app("tick.js");
    let text = format!(
        "module.exports = {{ apps: [\n\
         {{ name: 'a', script: '{good}', max_memory_restart: '5 potatoes' }},\n\
         {{ name: 'b', script: '{good}', instances: 'lots', wacth: true }},\n\
         {{ name: 'c' }},\n] }};"
    );
    let path = musher.write("ecosystem.config.js", &text);
    for command in [&["start"][..], &["config", "check"][..]] {
        let mut args = command.to_vec();
        args.push(path.to_str().expect("a path"));
        let ran = musher.run(&args);
        assert_eq!(ran.code, 1, "{args:?}");
        let told = format!("{}{}", ran.stdout, ran.stderr);
        for word in ["max_memory_restart", "script", "wacth", "watch"] {
            assert!(told.contains(word), "{word} in {told}");
        }
    }
    assert!(musher.list().is_empty());
}

#[test]
fn a_config_that_does_not_parse_names_file_and_line() {
    let musher = Musher::new();
    let js = musher.write(
        "ecosystem.config.js",
        "module.exports = {\n  apps: [\n  oops oops\n]};",
    );
    let ran = musher.run(&["start", js.to_str().expect("a path")]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("ecosystem.config.js:3"),
        "{}",
        ran.stderr
    );
    let ran = musher.run(&["start", "missing.config.js"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("not found"), "{}", ran.stderr);
}

#[test]
fn an_unknown_target_is_told_with_exit_code_one() {
    let musher = Musher::new();
    for verb in ["stop", "restart", "reload", "delete"] {
        let ran = musher.run(&[verb, "nobody"]);
        assert_eq!(ran.code, 1, "{verb}");
        assert!(
            ran.stderr.contains("Process or Namespace nobody not found"),
            "{verb}: {}",
            ran.stderr
        );
    }
    assert_eq!(musher.run(&["describe", "nobody"]).code, 1);
    assert_eq!(musher.run(&["id", "nobody"]).code, 0);
}

#[test]
fn a_port_taken_by_a_stranger_is_the_apps_error_and_in_its_log() {
    let musher = Musher::new();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = stranger
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let mut command =
        musher.command(&["start", &Musher::app("http.js"), "--name", "api", "-i", "2"]);
    let output = command
        .env("PORT", &port)
        .env("HOST", "127.0.0.1")
        .output()
        .expect("the binary runs");
    assert!(
        output.status.code() == Some(0) || output.status.code() == Some(1),
        "{output:?}"
    );
    musher.wait_status("api", 2, "errored");
    assert!(
        musher.log_has("api", "EADDRINUSE").is_some(),
        "{}",
        musher.evidence()
    );
}

#[test]
fn an_unknown_command_and_option_are_told_with_a_suggestion() {
    let musher = Musher::new();
    let ran = musher.run(&["strat", "app.js"]);
    assert_eq!(ran.code, 1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("start"));
    let ran = musher.run(&["start", "app.js", "--instnces", "2"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("--instances"), "{}", ran.stderr);
}

#[test]
fn a_worker_that_is_not_ready_in_time_counts_as_online_and_says_why() {
    let musher = Musher::new();
    let script = Musher::app("silent.js");
    musher.ok(&[
        "start",
        &script,
        "--name",
        "quiet",
        "--wait-ready",
        "--listen-timeout",
        "300",
    ]);
    musher.wait_status("quiet", 1, "online");
    let shown = musher.ok(&["describe", "quiet"]);
    assert!(shown.contains("ready"), "{shown}");
}

#[test]
fn garbage_on_the_socket_hurts_nobody_else() {
    use std::io::Write;
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let before = musher.pids("tick");
    let garbage: [&[u8]; 4] = [
        b"\xff\xff\xff\xff",
        b"\x11\0\0\0\x05j:{{{",
        &[0; 65536],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in garbage {
        let mut stream = std::os::unix::net::UnixStream::connect(musher.home().join("rpc.sock"))
            .expect("a socket");
        // The daemon may hang up at once: that is its answer.
        let _ = stream.write_all(bytes);
    }
    assert_eq!(musher.pids("tick"), before);
    let _ = free_port();
}

#[test]
fn a_home_that_cannot_be_used_is_named_with_the_next_step() {
    let musher = Musher::new();
    let file = musher.write("file", "");
    for home in [file.clone(), file.join("home"), "/proc/musher".into()] {
        let output = musher
            .command(&["list"])
            .env("MUSHER_HOME", &home)
            .output()
            .expect("the binary runs");
        let ran = crate::harness::Ran::from(output);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains(home.to_str().expect("a path")),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("MUSHER_HOME"), "{}", ran.stderr);
    }
}

#[test]
fn a_daemon_of_somebody_else_is_told_with_the_chown_that_helps() {
    use std::os::unix::fs::PermissionsExt;
    let musher = Musher::new();
    musher.ok(&["ping"]);
    let closed = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(musher.home(), permissions).expect("my own home");
    };
    closed(0o000);
    let program = musher.program();
    // The superuser gives up its right to pass closed doors.
    let drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
    let words: Vec<&std::ffi::OsStr> = match is_root() {
        true => drop.iter().map(std::ffi::OsStr::new).collect(),
        false => Vec::new(),
    };
    let words: Vec<_> = words.into_iter().chain([program.as_os_str()]).collect();
    let ran = ["list", "kill"].map(|verb| {
        let mut command = std::process::Command::new(words[0]);
        command.args(&words[1..]).arg(verb);
        command.env("MUSHER_HOME", musher.home());
        crate::harness::Ran::from(command.output().expect("the binary runs"))
    });
    closed(0o700);
    for ran in ran {
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(
            ran.stderr
                .contains("Permission denied, to give access to current user:\n$ sudo chown "),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("rpc.sock"), "{}", ran.stderr);
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[test]
fn a_daemon_that_cannot_begin_shows_its_own_words() {
    let musher = Musher::new();
    std::fs::create_dir_all(musher.home().join("rpc.sock")).expect("a directory in the way");
    let ran = musher.run(&["list"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("the daemon did not become ready"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("pm2.log"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("is not a socket; move it away"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_save_on_a_full_disk_says_so_and_keeps_the_old_list() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let full = musher.write("full/.keep", "");
    let full = full.parent().expect("a parent");
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh"])
        .arg(Musher::app("full_disk.sh"))
        .arg(full)
        .arg(musher.program())
        .env("MUSHER_HOME", musher.home())
        .env("PM2_DUMP_FILE_PATH", full.join("dump.pm2"))
        .env("PM2_DUMP_BACKUP_FILE_PATH", full.join("dump.pm2.bak"));
    let ran = crate::harness::Ran::from(command.output().expect("unshare runs"));
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stderr.contains("No space left on device"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("dump.pm2"), "{}", ran.stderr);
    assert!(ran.stderr.contains("  help: "), "{}", ran.stderr);
    assert!(
        ran.stdout.ends_with("dump.pm2\nfill\n[{\"name\":\"old\"}]"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_corrupted_dump_without_a_backup_is_named_and_left_alone() {
    let musher = Musher::new();
    musher.ok(&["ping"]);
    let dump = musher.home().join("dump.pm2");
    for (text, reason) in [("{oops", "is damaged"), ("{}", "it is no list")] {
        std::fs::write(&dump, text).expect("a dump");
        let ran = musher.run(&["resurrect"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains(reason), "{}", ran.stderr);
        assert!(ran.stderr.contains("No processes saved"), "{}", ran.stderr);
        assert!(ran.stderr.contains("musher save"), "{}", ran.stderr);
        assert_eq!(std::fs::read_to_string(&dump).expect("a dump"), text);
    }
}

#[test]
fn missing_config_names_are_told_with_what_there_is() {
    let musher = Musher::new();
    let script = Musher::app("tick.js");
    let ran = musher.run(&["start"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("File ecosystem.config.js not found"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(musher.cwd().to_str().expect("a path")),
        "{}",
        ran.stderr
    );
    let text = serde_json::json!({"apps": [{"name": "api", "script": script}]}).to_string();
    let path = musher.write("apps.json", &text);
    let path = path.to_str().expect("a path");
    let ran = musher.run(&["start", path, "--only", "nobody"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.stderr.contains("is called nobody; it declares: api"),
        "{}",
        ran.stderr
    );
    let ran = musher.run(&["start", path, "--env", "nowhere"]);
    assert!(
        ran.stderr
            .contains("Environment [nowhere] is not defined in process file"),
        "{}",
        ran.stderr
    );
    let ran = musher.run(&["config", "check"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("musher config check <file>"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_program_as_config_without_an_engine_names_what_is_needed() {
    let musher = Musher::new();
    let path = musher.write(
        "ecosystem.config.js",
        "module.exports = { apps: [{ script: process.env.SCRIPT }] };",
    );
    let output = musher
        .command(&["start", path.to_str().expect("a path")])
        .env("PATH", "/nonexistent")
        .output()
        .expect("the binary runs");
    let ran = crate::harness::Ran::from(output);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("needs node, bun or deno in PATH"),
        "{}",
        ran.stderr
    );
    let output = musher
        .command(&["start", &Musher::app("tick.js")])
        .env("PATH", "/nonexistent")
        .output()
        .expect("the binary runs");
    let ran = crate::harness::Ran::from(output);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("Interpreter node is NOT AVAILABLE in PATH"),
        "{}",
        ran.stderr
    );
}

#[test]
fn mistakes_about_one_process_name_the_next_command() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    for (args, expected) in [
        (&["stop", "nobody"][..], "musher list"),
        (&["stop", "/nobody/"], "musher list"),
        (&["describe", "nobody"], "musher list"),
        (&["env", "77"], "musher list"),
        (&["scale", "nobody", "2"], "musher list"),
        (&["reset", "nobody"], "musher list"),
        (&["logs", "nobody", "--nostream"], "musher list"),
        (&["scale", "tick", "many"], "4, +2 or -1"),
        (&["logs", "--lines", "many"], "is not a number of lines"),
        (&["sendSignal", "NOPE", "tick"], "signal"),
    ] {
        let ran = musher.run(args);
        assert_eq!(ran.code, 1, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn a_current_directory_that_is_gone_is_named() {
    let musher = Musher::new();
    let script = Musher::app("tick.js");
    let ran = musher.command(&["start", &script]);
    let mut shell = std::process::Command::new("sh");
    shell
        .args([
            "-c",
            "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"",
            "sh",
        ])
        .arg(ran.get_program())
        .args(ran.get_args())
        .current_dir(musher.cwd())
        .env("MUSHER_HOME", musher.home());
    let ran = crate::harness::Ran::from(shell.output().expect("a shell runs"));
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(
        ran.stderr.contains("the current directory cannot be used")
            && ran.stderr.contains("`cd` to one that exists"),
        "{}",
        ran.stderr
    );
}
