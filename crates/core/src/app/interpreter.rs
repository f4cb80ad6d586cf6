//! What runs a script when its app does not say: by extension, then by content.
//!
//! A pure choice over the answers of a [`Machine`]; nothing is looked up here.

use super::resolve::Machine;

/// What the first bytes of a file tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// It looks like a compiled program.
    Binary,
    /// It begins with `#!`; the rest of that line.
    Shebang(String),
    /// Anything else.
    Text,
}

/// The interpreter of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Program by name or path; `none` runs the script itself.
    pub interpreter: String,
    /// Arguments the choice needs before the user's.
    pub args: Vec<String>,
}

/// First Node that runs TypeScript without a flag, per release line.
const NODE_STRIPS_TYPES: [(u32, u32); 2] = [(22, 18), (23, 6)];
/// First Node that runs TypeScript with `--experimental-strip-types`.
const NODE_STRIPS_TYPES_WITH_FLAG: (u32, u32) = (22, 6);

/// Returns what runs `script`, whose first bytes are `content`.
///
/// # Errors
/// No program of this machine can run it; the text says what to install.
pub fn infer(script: &str, content: &Content, machine: &dyn Machine) -> Result<Choice, String> {
    let word = match extension(script) {
        Some("sh") => "bash",
        Some("py") if machine.program("python").is_some() => "python",
        Some("py") => "python3",
        Some("rb") => "ruby",
        Some("php") => "php",
        Some("pl") => "perl",
        Some("js" | "cjs" | "mjs") => "node",
        Some("coffee") => "coffee",
        Some("ls") => "lsc",
        Some("ts" | "tsx" | "mts" | "cts") => return typescript(machine),
        Some(_) | None => by_content(content),
    };
    Ok(plain(word))
}

/// Returns true for Node and Bun, which speak Node's cluster protocol.
pub fn runs_javascript(interpreter: &str) -> bool {
    let name = base_name(interpreter);
    name == "node" || name == "bun" || name.starts_with("node@")
}

/// Returns true for programs that cannot be a worker of a Node cluster.
pub fn never_clusters(interpreter: &str) -> bool {
    let name = base_name(interpreter);
    let foreign = ["none", "bash", "sh", "zsh", "ruby", "php", "perl"];
    foreign.contains(&name) || is_python(interpreter)
}

/// Returns true for every python, which needs `PYTHONUNBUFFERED` to log at once.
pub fn is_python(interpreter: &str) -> bool {
    base_name(interpreter).contains("python")
}

/// Returns the part after the last `/`.
pub fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Returns the file extension without its dot; a leading dot is not one.
pub fn extension(path: &str) -> Option<&str> {
    match base_name(path).rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => Some(extension),
        Some(_) | None => None,
    }
}

fn by_content(content: &Content) -> &'static str {
    match content {
        Content::Binary => "none",
        Content::Shebang(line) if line.contains("node") => "node",
        Content::Shebang(line) if line.contains("bun") => "bun",
        Content::Shebang(_) => "none",
        // PM2 runs unknown text with the Node that runs PM2 itself.
        Content::Text => "node",
    }
}

fn typescript(machine: &dyn Machine) -> Result<Choice, String> {
    if machine.program("bun").is_some() {
        return Ok(plain("bun"));
    }
    match machine.node_version() {
        Some(version) if strips_types(version) => Ok(plain("node")),
        Some(version) if version >= NODE_STRIPS_TYPES_WITH_FLAG => Ok(Choice {
            interpreter: "node".to_owned(),
            args: vec!["--experimental-strip-types".to_owned()],
        }),
        Some((major, minor)) => Err(format!(
            "no program here runs TypeScript: node is {major}.{minor}; \
             install bun or node 22.18, or set `interpreter`"
        )),
        None => Err("no program here runs TypeScript: install bun or node 22.18".to_owned()),
    }
}

fn strips_types(version: (u32, u32)) -> bool {
    let [older, newer] = NODE_STRIPS_TYPES;
    version >= newer || (version.0 == older.0 && version >= older)
}

fn plain(word: &str) -> Choice {
    Choice {
        interpreter: word.to_owned(),
        args: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::resolve::tests::Fake;

    #[test]
    fn the_extension_chooses_then_the_content() {
        let machine = Fake::default();
        for (script, content, word) in [
            ("/a/run.sh", Content::Text, "bash"),
            ("/a/run.py", Content::Text, "python3"),
            ("/a/run.rb", Content::Text, "ruby"),
            ("/a/run.php", Content::Text, "php"),
            ("/a/run.pl", Content::Text, "perl"),
            ("/a/run.mjs", Content::Text, "node"),
            ("/a.d/run", Content::Binary, "none"),
            ("/a/run", Content::Text, "node"),
            (
                "/a/run",
                Content::Shebang("/usr/bin/env node".into()),
                "node",
            ),
            ("/a/run", Content::Shebang("/bin/sh".into()), "none"),
            ("/a/.js", Content::Binary, "none"),
        ] {
            let choice = infer(script, &content, &machine).unwrap();
            assert_eq!(choice.interpreter, word, "{script}");
        }
    }

    #[test]
    fn typescript_takes_bun_then_a_node_that_strips_types() {
        for (bun, node, expected) in [
            (true, None, Ok(("bun", 0))),
            (false, Some((22, 18)), Ok(("node", 0))),
            (false, Some((24, 0)), Ok(("node", 0))),
            (false, Some((23, 6)), Ok(("node", 0))),
            (false, Some((23, 5)), Ok(("node", 1))),
            (false, Some((22, 6)), Ok(("node", 1))),
            (false, Some((20, 20)), Err(())),
            (false, None, Err(())),
        ] {
            let mut machine = Fake {
                node,
                ..Fake::default()
            };
            if bun {
                machine.programs.push("bun");
            }
            let choice = infer("/a/run.ts", &Content::Text, &machine);
            let shape = choice
                .as_ref()
                .map(|c| (c.interpreter.as_str(), c.args.len()));
            assert_eq!(shape.map_err(|_| ()), expected, "{node:?}");
        }
    }
}
