//! Files of variables, in the format of `node --env-file`.
//!
//! `NAME=value` per line, `export` before it allowed; `#` begins a comment
//! outside of quotes; single, double and back quotes may span lines; only in
//! double quotes `\n` is a line break. Nothing is expanded.

use serde_json::{Map, Value};
use std::io;
use std::path::Path;

/// Most bytes of a file of variables.
const SIZE_LIMIT: u64 = 1 << 20;

/// Returns the variables of a file in order.
///
/// # Errors
/// It cannot be read, is no text, or is bigger than 1 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Map<String, Value>> {
    if std::fs::metadata(path)?.len() > SIZE_LIMIT {
        return Err(io::Error::other("a file of variables may have 1 MiB"));
    }
    Ok(parse(&std::fs::read_to_string(path)?))
}

/// Returns the variables of a text in order; lines without `=` are skipped.
pub(super) fn parse(text: &str) -> Map<String, Value> {
    let text = text.replace("\r\n", "\n");
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    let mut out = Map::new();
    while !rest.is_empty() {
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let line = &rest[..line_end];
        let Some(equals) = line.find('=').filter(|_| !line.starts_with('#')) else {
            rest = rest[line_end..].trim_start();
            continue;
        };
        let name = line[..equals].trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let (value, after) = value(&rest[equals + 1..]);
        if !name.is_empty() {
            out.insert(name.to_owned(), value.into());
        }
        rest = after.trim_start();
    }
    out
}

/// Returns the value at the start of `text`, and what follows its line.
fn value(text: &str) -> (String, &str) {
    let text = text.trim_start_matches([' ', '\t']);
    let line_end = |from: usize| text[from..].find('\n').map_or(text.len(), |at| from + at);
    if let Some(quote) = text
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\'' | '`'))
        && let Some(length) = text[1..].find(quote)
    {
        let inner = &text[1..=length];
        let value = if quote == '"' {
            inner.replace("\\n", "\n")
        } else {
            inner.to_owned()
        };
        return (value, &text[line_end(length + 2)..]);
    }
    let end = line_end(0);
    let bare = text[..end].split('#').next().unwrap_or_default();
    (bare.trim().to_owned(), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_variables_read_as_node_reads_them() {
        let text = "# comment\nA=1\nexport B = two words # tail\nC=\"x # y\\nz\" # t\r\n\
                    D='a\\nb'\nE=\nF=\"first\nsecond\"\n  G=`it's`\nnonsense\nH=a=b\nI=\"open";
        assert_eq!(
            Value::Object(parse(text)),
            json!({"A": "1", "B": "two words", "C": "x # y\nz", "D": "a\\nb", "E": "",
                   "F": "first\nsecond", "G": "it's", "H": "a=b", "I": "\"open"})
        );
    }

    #[test]
    fn an_empty_text_has_no_variables() {
        assert!(parse("").is_empty() && parse("\n\n#x").is_empty());
    }
}
