//! Parses the formats that are data: JSON5, YAML, TOML, and literal modules.

use super::LoadError;
use super::position::of_offset;
use serde_json::Value;

/// Returns the value of JSON or JSON5 text.
pub(super) fn json(file: &str, source: &str) -> Result<Value, LoadError> {
    json5::from_str(source).map_err(|error| {
        // The crate counts lines and columns from 0.
        let at = error
            .position()
            .map(|at| (at.line as u32 + 1, at.column as u32 + 1));
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or_default();
        malformed(file, at, message)
    })
}

/// Returns the value of YAML text.
pub(super) fn yaml(file: &str, source: &str) -> Result<Value, LoadError> {
    serde_saphyr::from_str(source).map_err(|error| {
        let at = error
            .location()
            .map(|at| (at.line() as u32, at.column() as u32));
        malformed(file, at, &error.to_string())
    })
}

/// Returns the value of TOML text.
pub(super) fn toml(file: &str, source: &str) -> Result<Value, LoadError> {
    ::toml::from_str(source).map_err(|error| {
        let at = error.span().map(|span| of_offset(source, span.start));
        malformed(file, at, error.message())
    })
}

/// Returns the value of a module that only exports a literal, or `None` if
/// it is more than that.
pub(super) fn literal(source: &str) -> Option<Value> {
    let mut rest = source.trim_start();
    loop {
        let comment_end = if rest.starts_with("//") || rest.starts_with("#!") {
            rest.find('\n').map_or(rest.len(), |end| end + 1)
        } else if rest.starts_with("/*") {
            rest.find("*/")? + 2
        } else {
            break;
        };
        rest = rest[comment_end..].trim_start();
    }
    for strict in ["'use strict'", "\"use strict\""] {
        if let Some(after) = rest.strip_prefix(strict) {
            rest = after.trim_start_matches(';').trim_start();
        }
    }
    let body = match rest.strip_prefix("module.exports") {
        Some(after) => after.trim_start().strip_prefix('=')?,
        None => rest.strip_prefix("export default")?,
    };
    json5::from_str(body.trim_end().trim_end_matches(';')).ok()
}

fn malformed(file: &str, at: Option<(u32, u32)>, message: &str) -> LoadError {
    LoadError::Malformed {
        file: file.to_owned(),
        at,
        message: message.to_owned(),
    }
}
