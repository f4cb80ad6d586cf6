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
