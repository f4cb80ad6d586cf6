//! When and how the agent is loaded into an app.
//!
//! The agent is a script that Node loads before the app, named in
//! `NODE_OPTIONS`; it takes itself out again before anything else runs. Here
//! it is decided whether an app gets it and what the variable says; the script
//! itself is the daemon's. Pure text, nothing is looked up.

use super::{AppSpec, Interpreter, interpreter};

/// The script of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its absolute path.
    pub path: String,
    /// Who may read it: the daemon's user.
    pub uid: u32,
}

/// The variable Node reads its options from.
pub const NODE_OPTIONS: &str = "NODE_OPTIONS";

/// Options under which Node refuses scripts it was not told of one by one.
const CONFINING: [&str; 3] = [
    "--permission",
    "--experimental-permission",
    "--experimental-policy",
];

/// Returns whether an app is run by Node with the agent in it.
pub fn is_wanted(agent: &Agent, spec: &AppSpec, node_options: Option<&str>) -> bool {
    let Interpreter::Program(program) = &spec.interpreter else {
        return false;
    };
    let readable = spec.run_as.is_none_or(|user| user.uid == agent.uid);
    let confines = |word: &str| CONFINING.iter().any(|option| word.starts_with(option));
    let options = node_options
        .into_iter()
        .flat_map(str::split_ascii_whitespace);
    let mut words = options.chain(spec.interpreter_args.iter().map(String::as_str));
    spec.agent && is_node(program) && readable && !words.any(confines)
}

/// Returns true for Node by name or path.
pub fn is_node(program: &str) -> bool {
    let name = interpreter::base_name(program);
    name == "node" || name == "nodejs" || name.starts_with("node@")
}

/// Returns `NODE_OPTIONS` with the agent before what the user wrote. Node cuts
/// the text at spaces outside of double quotes, in which a backslash stands
/// before a quote or another backslash; releases before 12 know no quotes, so
/// there are none unless a path needs them.
pub fn with_agent(path: &str, node_options: Option<&str>) -> String {
    let path = if path.contains([' ', '"', '\\']) {
        let escaped = path.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    } else {
        path.to_owned()
    };
    match node_options {
        Some(options) => format!("--require {path} {options}"),
        None => format!("--require {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::RunAs;
    use crate::wire::pm2_env::tests::spec;

    fn agent() -> Agent {
        Agent {
            path: "/h/agent-1f.cjs".into(),
            uid: 1000,
        }
    }

    fn wanted(change: impl FnOnce(&mut AppSpec), node_options: Option<&str>) -> bool {
        let mut spec = spec();
        spec.interpreter = Interpreter::Program("node".into());
        change(&mut spec);
        is_wanted(&agent(), &spec, node_options)
    }

    #[test]
    fn only_node_of_the_daemons_own_user_gets_the_agent() {
        let program = |name: &'static str| {
            move |spec: &mut AppSpec| spec.interpreter = Interpreter::Program(name.into())
        };
        let user = |uid| move |spec: &mut AppSpec| spec.run_as = Some(RunAs { uid, gid: 1 });
        assert!(wanted(|_| (), Some("--max-old-space-size=99")));
        assert!(wanted(program("/opt/node/bin/node"), None));
        assert!(wanted(user(1000), None));
        assert!(!wanted(user(0), None));
        assert!(!wanted(|spec| spec.agent = false, None));
        assert!(!wanted(|spec| spec.interpreter = Interpreter::None, None));
        for other in ["bun", "deno", "python3", "/bin/sh", "ts-node"] {
            assert!(!wanted(program(other), None), "{other}");
        }
        let confined = |spec: &mut AppSpec| spec.interpreter_args = vec!["--permission".into()];
        assert!(!wanted(confined, None));
        assert!(!wanted(
            |_| (),
            Some("--trace-warnings --experimental-permission")
        ));
    }

    #[test]
    fn a_path_is_quoted_as_node_reads_it() {
        for (path, options, text) in [
            ("/h/a.cjs", None, "--require /h/a.cjs"),
            ("/h/a.cjs", Some(""), "--require /h/a.cjs "),
            ("/h/a.cjs", Some("--x"), "--require /h/a.cjs --x"),
            ("/h h/a.cjs", None, "--require \"/h h/a.cjs\""),
            ("/h\"\\/a.cjs", None, "--require \"/h\\\"\\\\/a.cjs\""),
        ] {
            assert_eq!(with_agent(path, options), text);
        }
    }
}
