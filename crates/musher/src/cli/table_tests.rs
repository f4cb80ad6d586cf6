//! The table at several widths, compared with what PM2 prints.

use super::*;
use serde_json::json;

fn options(width: Option<usize>) -> ListOptions {
    ListOptions {
        width,
        color: false,
        sort: "name".to_owned(),
        mini: false,
        reasons: false,
        now_ms: 1_000_000,
    }
}

fn process(id: u32, name: &str, status: &str) -> Value {
    json!({
        "pid": 10402, "name": name, "pm_id": id,
        "monit": {"memory": 50_646_220, "cpu": 12.3},
        "pm2_env": {
            "name": name, "pm_id": id, "namespace": "foo", "version": "N/A",
            "exec_mode": "cluster_mode", "status": status, "pm_uptime": 880_000,
            "restart_time": 1, "username": "root", "watch": false,
        },
        "reason": "exit 1, 16 times in 9 s",
    })
}

#[test]
fn the_full_table_is_that_of_pm2() {
    let list = [process(0, "bb", "online")];
    let expected = "\
┌────┬───────┬─────────────┬─────────┬─────────┬──────────┬────────┬──────┬───────────┬──────────┬──────────┬──────────┬──────────┐
│ id │ name  │ namespace   │ version │ mode    │ pid      │ uptime │ ↺    │ status    │ cpu      │ mem      │ user     │ watching │
├────┼───────┼─────────────┼─────────┼─────────┼──────────┼────────┼──────┼───────────┼──────────┼──────────┼──────────┼──────────┤
│ 0  │ bb    │ foo         │ N/A     │ cluster │ 10402    │ 2m     │ 1    │ online    │ 12.3%    │ 48.3mb   │ root     │ disabled │
└────┴───────┴─────────────┴─────────┴─────────┴──────────┴────────┴──────┴───────────┴──────────┴──────────┴──────────┴──────────┘
";
    assert_eq!(super::list(&list, &options(None)), expected);
}

#[test]
fn an_empty_list_has_a_header_and_no_middle_rule() {
    let text = super::list(&[], &options(None));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[1].starts_with("│ id │ name      │ namespace   │"),
        "{text}"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_layouts_follow_the_width() {
    let list = [
        process(0, "日本語のアプリ", "online"),
        process(12, "a-rather-long-name-of-an-app-that-goes-on", "errored"),
    ];
    for width in [20, 40, 80, 134, 200] {
        let mut options = options(Some(width));
        options.reasons = true;
        let text = super::list(&list, &options);
        for line in text.lines() {
            let is_hint = line.starts_with("  see: ");
            assert!(is_hint || line.width() <= width, "{width}: {line}");
        }
    }
    let small = [process(0, "api", "online")];
    for (width, columns) in [(40, 3), (50, 5), (80, 7), (134, 13), (200, 13)] {
        let text = super::list(&small, &options(Some(width)));
        let header = text.lines().nth(1).unwrap();
        assert_eq!(header.matches('│').count(), columns + 1, "{width}: {text}");
    }
}

#[test]
fn pipes_get_no_escapes_and_terminals_do() {
    let list = [process(0, "api", "errored")];
    let mut options = options(None);
    options.reasons = true;
    assert!(!super::list(&list, &options).contains('\u{1b}'));
    options.color = true;
    assert!(super::list(&list, &options).contains("\u{1b}[31merrored"));
}

#[test]
fn problems_are_told_below_the_table_with_the_next_command() {
    let list = [
        process(0, "api", "errored"),
        process(1, "api", "errored"),
        process(2, "web", "online"),
        process(3, "it's me", "waiting restart"),
    ];
    let mut options = options(None);
    options.reasons = true;
    let text = super::list(&list, &options);
    let expected = "
api (0, 1): exit 1, 16 times in 9 s
  see: musher logs api, musher describe api
it's me (3): exit 1, 16 times in 9 s
  see: musher logs 'it'\\''s me', musher describe 'it'\\''s me'
";
    assert!(text.ends_with(expected), "{text}");
    options.width = Some(30);
    let text = super::list(&list, &options);
    assert!(
        text.contains("\napi (0, 1): exit 1, 16 times …\n"),
        "{text}"
    );
}

#[test]
fn of_many_problems_the_first_are_told_and_the_rest_counted() {
    let list: Vec<Value> = (0..25)
        .map(|id| process(id, &format!("app-{id:02}"), "errored"))
        .collect();
    let mut options = options(None);
    options.reasons = true;
    let text = super::list(&list, &options);
    assert_eq!(text.matches("see: musher logs").count(), MAX_PROBLEMS);
    assert!(
        text.ends_with("and 20 more: musher list --sort status\n"),
        "{text}"
    );
}

#[test]
fn modules_have_a_table_of_their_own() {
    let mut module = process(3, "pm2-logrotate", "online");
    module["pm2_env"]["pmx_module"] = json!(true);
    let text = super::list(&[process(0, "api", "online"), module], &options(None));
    assert!(text.contains("┘\nModule\n┌"), "{text}");
    assert!(text.contains("│ id │ module"), "{text}");
}

#[test]
fn the_order_is_by_name_unless_asked_otherwise() {
    let list = [
        process(2, "b", "online"),
        process(1, "c", "online"),
        process(0, "a", "stopped"),
    ];
    for (sort, expected) in [
        ("name", "021"),
        ("id:desc", "210"),
        ("status", "120"),
        ("id", "012"),
    ] {
        let mut options = options(None);
        options.sort = sort.to_owned();
        let text = super::list(&list, &options);
        let ids: String = text
            .lines()
            .skip(3)
            .filter_map(|line| line.chars().nth(2))
            .collect();
        assert_eq!(&ids[..3], expected, "{sort}");
    }
}

#[test]
fn the_mini_list_has_exactly_the_keys_of_pm2() {
    let mut options = options(None);
    options.mini = true;
    let text = super::list(&[process(0, "api", "online")], &options);
    let keys: Vec<&str> = text
        .lines()
        .map(|line| line.split(" :").next().unwrap())
        .collect();
    let expected = [
        "+--- api",
        "namespace",
        "version",
        "pid",
        "pm2 id",
        "status",
        "mode",
        "restarted",
        "uptime",
        "memory usage",
        "error log",
        "watching",
        "PID file",
        "",
    ];
    assert_eq!(keys, expected);
}
