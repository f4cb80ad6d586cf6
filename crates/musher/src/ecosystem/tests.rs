use super::*;
use crate::ecosystem::outcome::FileOutcome;
use musher_core::app::attributes::Severity;
use serde_json::json;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs")
}

fn environment() -> Environment {
    let directory = configs().to_string_lossy().into_owned();
    Environment {
        cwd: directory,
        home: "/home/me".to_owned(),
        pm2_home: "/home/me/.pm2".to_owned(),
        log_dir: "/l".to_owned(),
        pid_dir: "/p".to_owned(),
        inherited: std::env::vars().collect(),
        username: "me".to_owned(),
        ..Environment::default()
    }
}

fn options(limit: Duration) -> LoadOptions {
    LoadOptions {
        env: std::env::vars().collect(),
        cwd: configs(),
        argv: vec!["start".to_owned(), "it".to_owned()],
        limit,
    }
}

fn outcome(file: &str, overrides: &CliOverrides) -> FileOutcome {
    resolve_file(file, overrides, &environment()).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn description(file: &str, env_name: Option<&str>) -> Map<String, Value> {
    let env_name = env_name.map(str::to_owned);
    let found = outcome(
        file,
        &CliOverrides {
            env_name,
            ..CliOverrides::default()
        },
    );
    assert!(!found.has_errors(), "{file}: {:?}", found.problems);
    found.apps[0].resolved.description.clone()
}

#[test]
fn every_good_file_gives_its_apps() {
    for (file, names) in [
        ("object.config.js", &["api"][..]),
        ("array.config.js", &["one", "two"]),
        ("single.config.js", &["single"]),
        ("apps-object.config.js", &["alone"]),
        ("requires.config.js", &["req"]),
        ("commonjs.config.cjs", &["cjs"]),
        ("default.config.mjs", &["mjs"]),
        ("named.config.mjs", &["named"]),
        ("await.config.mjs", &["awaited"]),
        ("function.config.js", &["called"]),
        ("promise.config.js", &["promised"]),
        ("async.config.js", &["later"]),
        ("esm/module.config.js", &["esm"]),
        ("noisy.config.js", &["noisy"]),
        ("values.config.js", &["values"]),
        ("full.config.js", &["shop-api", "shop-worker"]),
        ("plain.json", &["json"]),
        ("relaxed.json", &["relaxed"]),
        ("five.json5", &["five"]),
        ("package.json", &["packaged"]),
        ("list.yaml", &["yaml"]),
        ("merge.yml", &["left", "right"]),
        ("table.toml", &["toml"]),
        ("static.json", &[]),
        ("envfile.json", &["vars"]),
        ("command.json", &["node app.js --flag", "app"]),
    ] {
        let found = outcome(file, &CliOverrides::default());
        let found_names: Vec<&str> = found.apps.iter().map(|app| app.name.as_str()).collect();
        assert_eq!(found_names, names, "{file}: {:?}", found.problems);
        assert!(!found.has_errors(), "{file}: {:?}", found.problems);
    }
}

#[test]
fn every_broken_file_names_line_column_and_the_next_step() {
    for (file, place, message) in [
        ("syntax.config.js", ":3:17", "SyntaxError"),
        ("syntax.config.mjs", ":3:", "SyntaxError"),
        ("throws.config.js", ":3:44", "TypeError"),
        ("./esm/../throws.config.js", ":3:44", "TypeError"),
        ("missing-module.config.js", ":1:18", "not-there.js"),
        ("broken.json", ":2:28", "expected value\ncheck"),
        ("broken.yaml", ":", ""),
        ("broken.toml", ":3:10", ""),
    ] {
        let error = load(file, &options(EVALUATION_LIMIT)).unwrap_err();
        assert!(
            matches!(error, LoadError::Malformed { at: Some(_), .. }),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("File {file} malformated\n")),
            "{text}"
        );
        assert!(text.contains(&format!("{file}{place}")), "{text}");
        assert!(text.contains(message), "{text}");
        assert!(
            text.ends_with(&format!("`musher config check {file}`")),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_configuration_is_said_to_be_none() {
    let number = load("number.config.js", &options(EVALUATION_LIMIT)).unwrap_err();
    assert!(
        matches!(
            number,
            LoadError::Shape {
                found: "a number",
                ..
            }
        ),
        "{number:?}"
    );
    let missing = load("nowhere.config.js", &options(EVALUATION_LIMIT)).unwrap_err();
    assert_eq!(missing.to_string(), "File nowhere.config.js not found");
}

#[test]
fn all_problems_of_all_apps_are_told_at_once_with_their_lines() {
    let found = outcome("mistakes.config.js", &CliOverrides::default());
    let lines: Vec<String> = found
        .problems
        .iter()
        .map(|problem| render("f", problem))
        .collect();
    for (line, start) in lines.iter().zip([
        "f:7:7: error: apps[1] \"x\": instances: `instances` must be a number",
        "f:8:7: error: apps[1] \"x\": max_memory_restart: Verify \"max_memory_restart\"",
        "f:9:7: warning: apps[1] \"x\": wacth: unknown attribute `wacth` is ignored \
         (help: did you mean `watch`?)",
        "f:6:7: error: apps[1] \"x\": script: Script not found: ",
        "f:11:39: error: apps[2] \"fine\": autorestart: Expect \"autorestart\"",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(found.has_errors());

    let found = outcome("mistakes.yaml", &CliOverrides::default());
    let places: Vec<_> = found.problems.iter().map(|problem| problem.at).collect();
    assert_eq!(places, [Some((4, 5)), Some((7, 5))]);
    assert_eq!(found.problems[0].help.as_deref(), Some("write 3000"));
}

#[test]
fn values_that_json_does_not_know_become_text() {
    let env = description("values.config.js", None)["env"].clone();
    assert_eq!(env["BIG"], "10");
    assert_eq!(env["LIST"], "[1,2]");
    assert_eq!(env["NONE"], "null");
    assert_eq!(env["DEEP"], "{\"a\":1}");
    assert!(env.get("GONE").is_none());
}

#[test]
fn large_values_and_half_surrogate_pairs_arrive() {
    let found = description("large.config.js", None);
    let env = |key: &str| found["env"][key].as_str().map(str::to_owned);
    assert_eq!(env("BIG").map(|text| text.len()), Some(1 << 20));
    assert_eq!(env("LONE").as_deref(), Some("a\u{fffd}"));
    assert_eq!(env("PAIR").as_deref(), Some("\u{1f680}"));
    assert_eq!(env("BACKSLASH").as_deref(), Some("\\ud83d"));
}

#[test]
fn the_file_sees_the_command_line() {
    let config = load("argv.config.js", &options(EVALUATION_LIMIT)).unwrap();
    assert_eq!(config.apps[0]["name"], "start-it");
}

#[test]
fn files_of_variables_lie_below_env_and_above_the_shell() {
    let env = description("envfile.json", None)["env"].clone();
    assert_eq!(
        (&env["FROM_FILE"], &env["SHARED"]),
        (&json!("base"), &json!("env"))
    );
    let env = description("envfile.json", Some("production"))["env"].clone();
    assert_eq!(
        (&env["FROM_FILE"], &env["LAST"]),
        (&json!("production"), &json!("1"))
    );
}

#[test]
fn deploy_variables_lie_below_the_chosen_block() {
    let env = description("full.config.js", Some("production"))["env"].clone();
    assert_eq!(
        (&env["REGION"], &env["NODE_ENV"]),
        (&json!("eu"), &json!("production"))
    );
}

#[test]
fn the_command_line_selects_replaces_and_fills() {
    let overrides = CliOverrides {
        only: vec!["two".to_owned()],
        replace: json!({"instances": 3}).as_object().unwrap().clone(),
        fill: json!({"namespace": "ns", "name": "no"})
            .as_object()
            .unwrap()
            .clone(),
        ..CliOverrides::default()
    };
    let found = outcome("array.config.js", &overrides);
    assert_eq!(found.apps.len(), 1);
    let description = &found.apps[0].resolved.description;
    assert_eq!(description["name"], "two");
    assert_eq!(description["instances"], 3);
    assert_eq!(description["namespace"], "ns");
}

#[test]
fn a_file_that_does_not_end_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loop.config.js");
    std::fs::write(&path, "for (;;) {}").unwrap();
    let error = load(
        &path.to_string_lossy(),
        &options(Duration::from_millis(400)),
    )
    .unwrap_err();
    assert!(matches!(error, LoadError::TimedOut { .. }), "{error:?}");
}

#[test]
fn what_a_stopped_file_has_started_is_stopped_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spawn.config.js");
    std::fs::write(
        &path,
        "const { spawn } = require('child_process');\n\
         const child = spawn('sleep', ['60'], { stdio: 'inherit' });\n\
         require('fs').writeFileSync(__dirname + '/pid', String(child.pid));\n\
         module.exports = new Promise(() => setInterval(() => {}, 1000));",
    )
    .unwrap();
    let error = load(&path.to_string_lossy(), &options(Duration::from_secs(2))).unwrap_err();
    assert!(matches!(error, LoadError::TimedOut { .. }), "{error:?}");
    let pid = std::fs::read_to_string(directory.path().join("pid")).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    // Gone, or a zombie that only waits for init.
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    };
    while alive() {
        assert!(std::time::Instant::now() < deadline, "{pid} is still alive");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_file_that_ends_its_engine_or_floods_us_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("exit.config.js");
    std::fs::write(&path, "process.exit(3)").unwrap();
    let error = load(&path.to_string_lossy(), &options(EVALUATION_LIMIT)).unwrap_err();
    assert!(matches!(error, LoadError::Engine { .. }), "{error:?}");
    std::fs::write(&path, "module.exports = [{ name: 'x'.repeat(9 << 20) }]").unwrap();
    let error = load(&path.to_string_lossy(), &options(EVALUATION_LIMIT)).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error:?}");
}

#[test]
fn without_an_engine_a_literal_is_read_and_a_program_is_refused() {
    let bare = LoadOptions {
        env: Vec::new(),
        ..options(EVALUATION_LIMIT)
    };
    assert_eq!(
        load("object.config.js", &bare).unwrap().apps[0]["name"],
        "api"
    );
    assert_eq!(load("full.config.js", &bare).unwrap().apps.len(), 2);
    let error = load("requires.config.js", &bare).unwrap_err();
    assert!(matches!(error, LoadError::NoRuntime { .. }), "{error:?}");
}

#[test]
fn typescript_needs_an_engine_that_knows_types() {
    let environment = environment();
    let bun = find_in(&environment, "bun") || find_in(&environment, "deno");
    let node = musher_core::app::resolve::Machine::node_version(&environment);
    let strips =
        node.is_some_and(|version| version >= (23, 6) || (version.0 == 22 && version.1 >= 18));
    match load("typed.config.ts", &options(EVALUATION_LIMIT)) {
        Ok(config) => assert_eq!(config.apps[0]["name"], "typed"),
        Err(error) => {
            assert!(!bun && !strips, "{error}");
            assert!(matches!(error, LoadError::Malformed { .. }), "{error:?}");
        }
    }
}

fn find_in(environment: &Environment, name: &str) -> bool {
    musher_core::app::resolve::Machine::program(environment, name).is_some()
}

#[test]
fn a_script_takes_the_flags_and_pm2s_words_for_its_mistakes() {
    let flags = json!({"name": "web", "instances": "2", "max_memory_restart": "100M"});
    let resolved =
        resolve_script("app.js", flags.as_object().unwrap(), None, &environment()).unwrap();
    assert_eq!(resolved.description["exec_mode"], "cluster_mode");
    assert_eq!(resolved.description["max_memory_restart"], 100 << 20);
    assert_eq!(resolved.description["watch"], false);
    let mistakes = resolve_script("gone.js", &Map::new(), None, &environment()).unwrap_err();
    assert_eq!(
        mistakes[0].message,
        format!("Script not found: {}", configs().join("gone.js").display())
    );
    assert_eq!(mistakes[0].severity, Severity::Error);
}

#[test]
fn names_decide_what_is_a_configuration() {
    for (name, is_config) in [
        ("ecosystem.config.js", true),
        ("x.config.cjs", true),
        ("a.json", true),
        ("a.json5", true),
        ("/d/a.yml", true),
        ("a.toml", true),
        ("app.js", false),
        ("config.js", false),
        ("server.ts", false),
        ("json/app.js", false),
    ] {
        assert_eq!(is_config_file(name), is_config, "{name}");
    }
}

#[test]
fn the_default_is_the_first_name_that_exists() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(find_default(directory.path()), None);
    for name in ["ecosystem.yaml", "ecosystem.config.cjs"] {
        std::fs::write(directory.path().join(name), "").unwrap();
        assert_eq!(
            find_default(directory.path()),
            Some(directory.path().join(name))
        );
    }
}
