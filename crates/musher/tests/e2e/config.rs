//! Config files: every kind, every way to choose, every way to fail.

use crate::harness::{Musher, Ran};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

const REPORT: &str = "console.log(JSON.stringify({ event: 'up', env: process.env }));\n\
    setInterval(() => {}, 1000);\n";

fn arg(path: &std::path::Path) -> &str {
    path.to_str().expect("a path")
}

/// Returns a home with `app.js`, and the environment each process of `app` saw.
fn envs(musher: &Musher, config: &str, more: &[&str], n: usize) -> Vec<Value> {
    musher.write("app.js", REPORT);
    let path = musher.write("ecosystem.config.js", config);
    let mut line = vec!["start", arg(&path)];
    line.extend(more);
    musher.ok(&line);
    let facts = musher.wait_facts("app", "up", n);
    facts
        .into_iter()
        .map(|mut fact| fact["env"].take())
        .collect()
}

fn column(envs: &[Value], name: &str) -> Vec<String> {
    let mut column: Vec<String> = envs
        .iter()
        .map(|env| env[name].as_str().unwrap_or("-").to_owned())
        .collect();
    column.sort();
    column
}

/// Runs a command with this text on its standard input.
fn with_stdin(musher: &Musher, args: &[&str], text: &str) -> Ran {
    let mut child = musher
        .command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    Ran::from(child.wait_with_output().expect("it ends"))
}

#[test]
fn every_kind_of_file_starts_the_same_app() {
    for (file, text) in [
        (
            "a.config.cjs",
            "module.exports = { apps: [{ name: 'app', script: 'app.js', args: 'x' }] };",
        ),
        (
            "a.config.mjs",
            "export default { apps: [{ name: 'app', script: 'app.js', args: 'x' }] };",
        ),
        (
            "a.json",
            "{ \"apps\": [{ \"name\": \"app\", \"script\": \"app.js\", \"args\": \"x\" }] }",
        ),
        (
            "b.json",
            "// relaxed\n{ apps: [{ name: 'app', script: 'app.js', args: ['x'], }], }",
        ),
        (
            "a.json5",
            "{ apps: { name: 'app', script: 'app.js', args: ['x'], }, }",
        ),
        (
            "a.yaml",
            "apps:\n  - name: app\n    script: app.js\n    args: x\n",
        ),
        ("a.yml", "name: app\nscript: app.js\nargs: [x]\n"),
        (
            "a.toml",
            "[[apps]]\nname = \"app\"\nscript = \"app.js\"\nargs = \"x\"\n",
        ),
    ] {
        let musher = Musher::new();
        musher.write("app.js", REPORT);
        musher.write(file, text);
        musher.ok(&["start", file]);
        let list = musher.wait_status("app", 1, "online");
        assert_eq!(list[0]["pm2_env"]["args"], json!(["x"]), "{file}");
        assert_eq!(
            musher.ok(&["stop", file]).matches("stopped").count(),
            1,
            "{file}"
        );
        musher.ok(&["delete", file]);
        assert!(musher.list().is_empty(), "{file}");
    }
}

#[test]
fn a_dash_reads_the_config_from_standard_input() {
    let musher = Musher::new();
    musher.write("app.js", REPORT);
    let text = "{ apps: [{ name: 'app', script: 'app.js', instances: 2 }] }";
    let ran = with_stdin(&musher, &["start", "-"], text);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    musher.wait_status("app", 2, "online");
    let ran = with_stdin(&musher, &["start", "-"], "{ apps: [");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert_eq!(musher.of("app").len(), 2);
}

#[test]
fn only_starts_what_it_names() {
    let musher = Musher::new();
    musher.write("app.js", REPORT);
    let apps: Vec<Value> = ["a", "b", "c"]
        .iter()
        .map(|name| json!({ "name": name, "script": "app.js" }))
        .collect();
    let path = musher.write(
        "ecosystem.config.js",
        &format!("module.exports = {{ apps: {} }};", json!(apps)),
    );
    musher.ok(&["start", arg(&path), "--only", "a,c"]);
    let names: Vec<Value> = musher
        .list()
        .into_iter()
        .map(|mut p| p["name"].take())
        .collect();
    assert_eq!(names, ["a", "c"]);
    musher.ok(&["start", arg(&path)]);
    musher.ok(&["delete", arg(&path), "--only", "b"]);
    assert_eq!(
        (
            musher.of("a").len(),
            musher.of("b").len(),
            musher.of("c").len()
        ),
        (1, 0, 1)
    );
}

#[test]
fn named_environments_files_and_filters_are_laid_over_each_other() {
    let config = "module.exports = { apps: [{ name: 'app', script: 'app.js', env_file: '.env', \
        env: { A: 'env', B: 'env' }, env_staging: { B: 'staging' }, filter_env: ['SECRET'] }] };";
    for (more, a, b, c, d) in [
        (&[][..], "env", "env", "file", "-"),
        (
            &["--env", "staging"],
            "env",
            "staging",
            "file",
            "named file",
        ),
    ] {
        let musher = Musher::new();
        musher.write(".env", "# comment\nC=file\nA=\"file\"\n");
        musher.write(".env.staging", "D='named file'\n");
        musher.write("app.js", REPORT);
        let path = musher.write("ecosystem.config.js", config);
        let mut line = vec!["start", arg(&path)];
        line.extend(more);
        let output = musher
            .command(&line)
            .env("MY_SECRET_KEY", "x")
            .env("PLAIN", "y")
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        let env = musher.wait_facts("app", "up", 1).remove(0)["env"].take();
        for (name, expected) in [
            ("A", a),
            ("B", b),
            ("C", c),
            ("D", d),
            ("MY_SECRET_KEY", "-"),
            ("PLAIN", "y"),
        ] {
            assert_eq!(
                env[name].as_str().unwrap_or("-"),
                expected,
                "{name} with {more:?}"
            );
        }
    }
}

#[test]
fn an_unknown_named_environment_is_said() {
    let musher = Musher::new();
    musher.write("app.js", REPORT);
    let path = musher.write(
        "ecosystem.config.js",
        "module.exports = { name: 'app', script: 'app.js', env_production: {} };",
    );
    let ran = musher.run(&["start", arg(&path), "--env", "producton"]);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("producton"), "{told}");
}

#[test]
fn every_instance_gets_its_number_and_its_port() {
    for mode in ["cluster", "fork"] {
        let musher = Musher::new();
        let app = json!({ "name": "app", "script": "app.js", "instances": 3, "exec_mode": mode,
            "increment_var": "PORT", "instance_var": "WORKER", "env": { "PORT": 3000 } });
        let envs = envs(
            &musher,
            &format!("module.exports = {{ apps: [{app}] }};"),
            &[],
            3,
        );
        assert_eq!(column(&envs, "PORT"), ["3000", "3001", "3002"], "{mode}");
        assert_eq!(column(&envs, "WORKER"), ["0", "1", "2"], "{mode}");
        assert_eq!(column(&envs, "pm_id"), ["0", "1", "2"], "{mode}");
    }
}

#[test]
fn instances_are_counted_from_the_cpus_this_process_may_use() {
    let musher = Musher::new();
    let output = std::process::Command::new("nproc")
        .env_remove("OMP_NUM_THREADS")
        .output();
    let text = String::from_utf8(output.expect("nproc runs").stdout).expect("text");
    let n_cpus: usize = text.trim().parse().expect("a number");
    musher.write("app.js", REPORT);
    for (i, (instances, expected)) in [
        (json!("max"), n_cpus),
        (json!(0), n_cpus),
        (json!(-1), (n_cpus - 1).max(1)),
        (json!(-1000), 1),
        (json!("2"), 2),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("app{i}");
        let app = json!({ "name": name, "script": "app.js", "instances": instances });
        musher.start(&format!("module.exports = {{ apps: [{app}] }};"));
        assert_eq!(musher.of(&name).len(), expected, "{instances}");
    }
}

#[test]
fn a_daemon_bound_to_one_cpu_starts_one_instance() {
    let musher = Musher::new();
    let path = bound_config(&musher);
    let plain = musher.command(&["start", arg(&path)]);
    let mut command = std::process::Command::new("taskset");
    command
        .args(["-c", "0"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(musher.cwd())
        .env_clear();
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.output().expect("taskset runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(musher.of("bound").len(), 1);
}

fn bound_config(musher: &Musher) -> std::path::PathBuf {
    musher.write("app.js", REPORT);
    musher.write(
        "ecosystem.config.js",
        "module.exports = { name: 'bound', script: 'app.js', instances: 'max' };",
    )
}

#[test]
fn aliases_and_camel_case_mean_the_same_attributes() {
    let musher = Musher::new();
    musher.write("app.js", REPORT);
    musher.start(
        "module.exports = { apps: [{ name: 'app', exec: 'app.js', interpreterArgs: '--no-warnings', \
         output: 'o.log', err_file: 'e.log', maxMemoryRestart: '100M', killTimeout: 321, \
         combine_logs: true, restartDelay: 7, execMode: 'fork' }] };",
    );
    let env = musher.wait_status("app", 1, "online").remove(0)["pm2_env"].take();
    let cwd = musher.cwd();
    for (key, expected) in [
        ("pm_exec_path", json!(cwd.join("app.js"))),
        ("node_args", json!(["--no-warnings"])),
        ("pm_out_log_path", json!(cwd.join("o.log"))),
        ("pm_err_log_path", json!(cwd.join("e.log"))),
        ("max_memory_restart", json!(104_857_600)),
        ("kill_timeout", json!(321)),
        ("merge_logs", json!(true)),
        ("restart_delay", json!(7)),
        ("exec_mode", json!("fork_mode")),
    ] {
        assert_eq!(env[key], expected, "{key}");
    }
}

#[test]
fn a_second_start_of_a_file_restarts_with_its_changes() {
    let musher = Musher::new();
    musher.write("app.js", REPORT);
    let app = |stage: &str| {
        let app =
            json!({ "name": "app", "script": "app.js", "instances": 2, "env": { "STAGE": stage } });
        format!("module.exports = {{ apps: [{app}] }};")
    };
    musher.start(&app("one"));
    let before = musher.wait_status("app", 2, "online");
    musher.start(&app("two"));
    let after = musher.wait_status("app", 2, "online");
    let ids = |list: &[Value]| list.iter().map(|p| p["pm_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after));
    assert!(after.iter().all(|p| p["pm2_env"]["restart_time"] == 1));
    let facts = musher.wait_facts("app", "up", 4);
    let stages: Vec<String> = facts
        .iter()
        .filter_map(|f| f["env"]["STAGE"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(
        stages.iter().filter(|stage| *stage == "two").count(),
        2,
        "{stages:?}"
    );
}

/// A restart from a file takes attributes as the start did: users by name, and
/// `time` before a format of its own.
#[test]
fn a_second_start_of_an_unchanged_file_changes_nothing() {
    let musher = Musher::new();
    let text = serde_json::json!({
        "name": "same",
        "script": Musher::app("tick.js"),
        "cwd": musher.home(),
        "uid": "root",
        "gid": "root",
        "time": true,
        "log_date_format": "HH:mm",
        "max_memory_restart": "1G",
        "min_uptime": "10s",
        "args": "a \"b c\"",
    });
    let config = musher.write("same.json", &text.to_string());
    let keys = [
        "PWD",
        "uid",
        "gid",
        "log_date_format",
        "max_memory_restart",
        "min_uptime",
        "args",
        "pm_cwd",
    ];
    let env = |verb: &str| {
        musher.ok(&[verb, arg(&config)]);
        let process = musher.list().remove(0);
        keys.map(|key| process["pm2_env"][key].clone())
    };
    let first = env("start");
    for verb in ["start", "restart", "reload"] {
        assert_eq!(env(verb), first, "{keys:?} after {verb}");
    }
}

#[test]
fn starts_of_one_file_at_the_same_time_start_its_apps_once() {
    let musher = Musher::new();
    let app = |name: &str| json!({ "name": name, "script": Musher::app("tick.js") });
    let apps = json!({ "apps": [app("one"), app("two"), app("three")] });
    let config = musher.write("apps.json", &apps.to_string());
    let start = || musher.run(&["start", arg(&config)]);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        for client in clients {
            let ran = client.join().expect("a client");
            // One that came later may have restarted what this one waits for.
            assert!(
                ran.code == 0 || ran.stderr.contains("superseded"),
                "{}",
                ran.stderr
            );
        }
    });
    for name in ["one", "two", "three"] {
        assert_eq!(musher.of(name).len(), 1, "{name}");
    }
}

#[test]
fn what_a_config_prints_is_not_its_value() {
    let musher = Musher::new();
    musher.write("app.js", REPORT);
    let out = musher.start(
        "console.log('{\"apps\":[]}'); process.stdout.write('chatter');\n\
         module.exports = { apps: [{ name: 'app', script: 'app.js' }] };",
    );
    assert!(!out.contains("chatter"), "{out}");
    musher.wait_status("app", 1, "online");
}

#[test]
fn a_config_that_throws_is_told_with_file_and_line() {
    let musher = Musher::new();
    let path = musher.write(
        "ecosystem.config.js",
        "const dep = () => {\n  throw new Error('the secret is missing');\n};\n\nmodule.exports = { apps: [dep()] };",
    );
    let ran = musher.run(&["start", arg(&path)]);
    assert_eq!(ran.code, 1);
    for word in ["ecosystem.config.js:2", "the secret is missing"] {
        assert!(ran.stderr.contains(word), "{word} in {}", ran.stderr);
    }
    assert!(musher.list().is_empty());
}

#[test]
fn a_config_that_never_ends_is_given_up_after_ten_seconds() {
    let musher = Musher::new();
    let path = musher.write("ecosystem.config.js", "for (;;);");
    let begin = Instant::now();
    let ran = musher.run(&["config", "check", arg(&path)]);
    let took = begin.elapsed();
    assert_eq!(ran.code, 1);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("10 s"), "{told}");
    assert!((9..20).contains(&took.as_secs()), "{took:?}");
    let path = path.to_str().expect("a path").to_owned();
    let left = || {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
            .any(|line| line.contains(&path))
    };
    let gone = crate::harness::wait_for(Duration::from_secs(5), || (!left()).then_some(()));
    assert!(gone.is_some(), "the evaluator is still there");
}
