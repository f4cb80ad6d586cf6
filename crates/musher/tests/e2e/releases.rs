//! Release directories behind a link, going back, and the history of it all.

use crate::harness::{Musher, free_port, get, kill};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// An app in two release directories and a link to the first.
struct Site {
    musher: Musher,
    port: u16,
    root: PathBuf,
}

impl Site {
    fn new() -> Site {
        let musher = Musher::new();
        let port = free_port();
        let at = musher.write("site/one/app.js", &program("one", port));
        let root = at.ancestors().nth(2).expect("a directory").to_owned();
        fs::create_dir(root.join("two")).expect("a directory");
        fs::write(root.join("two/app.js"), program("two", port)).expect("a file");
        let site = Site { musher, port, root };
        site.deploy("one");
        let current = site.root.join("current");
        let current = current.display();
        let config = format!(
            "module.exports = {{ apps: [{{ name: 'web', script: '{current}/app.js', \
             cwd: '{current}', instances: 2, wait_ready: true }}] }};"
        );
        let config = site.musher.write("ecosystem.config.js", &config);
        site.musher.ok(&["start", config.to_str().expect("a path")]);
        site.musher.wait_status("web", 2, "online");
        site
    }

    /// Lets the link point to a release.
    fn deploy(&self, release: &str) {
        let link = self.root.join("link");
        symlink(release, &link).expect("a link");
        fs::rename(&link, self.root.join("current")).expect("a link");
    }

    /// Returns which release answers, and where its workers run.
    fn serving(&self) -> (String, Vec<PathBuf>) {
        let place = |pid: i64| fs::read_link(Path::new("/proc").join(pid.to_string()).join("cwd"));
        let pids = self.musher.pids("web");
        let places = pids.into_iter().map(|pid| place(pid).expect("a process"));
        let body = get(self.port, "/").expect("an answer");
        (body, places.collect())
    }

    fn assert_serves(&self, release: &str) {
        let place = self.root.join(release);
        let expected = (release.to_owned(), vec![place.clone(), place]);
        assert_eq!(self.serving(), expected);
    }
}

fn program(answer: &str, port: u16) -> String {
    format!(
        "require('http').createServer((q, s) => s.end('{answer}'))\
         .listen({port}, '127.0.0.1', () => process.send('ready'));"
    )
}

#[test]
fn a_reload_follows_the_link_and_a_rollback_goes_back() {
    let site = Site::new();
    site.assert_serves("one");
    site.deploy("two");
    site.musher.ok(&["reload", "web"]);
    site.assert_serves("two");
    site.musher.ok(&["rollback", "web"]);
    site.assert_serves("one");
    // A crash does not leave the release that was gone back to.
    let before = site.musher.pids("web");
    kill(before[0], "KILL");
    site.musher.wait("a replacement", || {
        let pids = site.musher.pids("web");
        (pids.len() == 2 && !pids.contains(&before[0])).then_some(())
    });
    site.musher.wait_status("web", 2, "online");
    site.assert_serves("one");
    // The next reload follows the link again.
    site.musher.ok(&["reload", "web"]);
    site.assert_serves("two");
}

#[test]
fn a_rollback_outlives_the_daemon() {
    let site = Site::new();
    site.deploy("two");
    site.musher.ok(&["reload", "web"]);
    site.musher.kill_daemon();
    site.musher.ok(&["rollback", "web"]);
    site.assert_serves("one");
}

#[test]
fn without_an_earlier_release_a_rollback_is_refused_and_nothing_is_touched() {
    let site = Site::new();
    let before = site.musher.pids("web");
    let refused = site.musher.run(&["rollback", "web"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("has no release before"),
        "{}",
        refused.stderr
    );
    assert_eq!(site.musher.pids("web"), before);
}

#[test]
fn a_failed_build_is_told_with_its_last_words_and_stands_in_the_history() {
    let site = Site::new();
    let before = site.musher.pids("web");
    fs::write(
        site.root.join("two/app.js"),
        "console.error('no database'); process.exit(3);",
    )
    .expect("a file");
    site.deploy("two");
    let failed = site.musher.run(&["reload", "web", "--json"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("no database"), "{}", failed.stderr);
    let receipt: Value = serde_json::from_str(&failed.stdout).expect("JSON");
    assert_eq!(receipt["ok"], false);
    let outcomes: Vec<&Value> = receipt["processes"]
        .as_array()
        .expect("processes")
        .iter()
        .map(|part| &part["outcome"])
        .collect();
    assert_eq!(outcomes, ["failed", "untouched"]);
    assert_eq!(site.musher.pids("web"), before);
    site.assert_serves("one");

    let history = site.musher.ok(&["history", "web", "--json"]);
    let history: Value = serde_json::from_str(&history).expect("JSON");
    let kinds: Vec<&str> = history
        .as_array()
        .expect("entries")
        .iter()
        .filter_map(|entry| entry["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["exit", "reload"]);
    assert_eq!(history[0]["code"], 3);
    let why = site.musher.ok(&["why", "web"]);
    assert!(why.contains("ended with exit code 3"), "{why}");
}
