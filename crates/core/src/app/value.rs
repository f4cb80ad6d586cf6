//! Readings of single values: sizes, spans, whole numbers, switches, words.
//!
//! PM2's files hold the same thing in many spellings (`"150M"`, `"1h"`,
//! `"1000"`, `1000`). Each reading lives here once. Nothing here knows which
//! attribute a value belongs to.

use serde_json::{Number, Value};

/// Returns a size in bytes: a number, or `300`, `300K`, `150M`, `1.5G`
/// (1024-based, case ignored, an optional final `B`).
pub fn bytes(value: &Value) -> Option<u64> {
    if let Some(number) = integer(value) {
        return u64::try_from(number).ok();
    }
    let text = value.as_str()?.trim().to_ascii_uppercase();
    let text = text.strip_suffix('B').unwrap_or(&text);
    let (digits, factor) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 1u64 << 10),
        (at, 'M') => (&text[..at], 1 << 20),
        (at, 'G') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    scaled(digits.trim_end(), factor)
}

/// Returns a span in milliseconds: a number of milliseconds, or `500`,
/// `500ms`, `10s`, `5m`, `1h`.
pub fn duration(value: &Value) -> Option<u64> {
    if let Some(number) = integer(value) {
        return u64::try_from(number).ok();
    }
    let text = value.as_str()?.trim();
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    units
        .iter()
        .find_map(|(unit, factor)| scaled(text.strip_suffix(unit)?, *factor))
}

/// Returns a whole number: a number without a fraction, or its text.
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => whole(number),
        Value::String(text) => {
            let text = text.trim();
            text.parse::<i64>()
                .ok()
                .or_else(|| whole(&Number::from_f64(text.parse::<f64>().ok()?)?))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns a switch: a boolean, or the texts `true` and `false`.
pub fn switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns a scalar as the text a variable would hold; `None` for null,
/// arrays and objects.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the words of an argument list: an array as it is (each element as
/// text), a string split by [`split`]. `None` for anything else.
pub fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => Some(
            items
                .iter()
                .map(|item| text(item).unwrap_or_else(|| item.to_string()))
                .collect(),
        ),
        Value::String(line) => Some(split(line)),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

/// Splits a command line on white space.
///
/// A token that is quoted as a whole loses its quotes; one that is quoted in
/// part (`key="v w"`) stays one token and keeps them. A quote without its
/// partner is an ordinary character.
pub fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let end = token_end(rest);
        words.push(unquoted(&rest[..end]).to_owned());
        rest = rest[end..].trim_start();
    }
    words
}

fn token_end(text: &str) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        if next.is_whitespace() {
            return at;
        }
        at += next.len_utf8();
        if matches!(next, '"' | '\'')
            && let Some(length) = text[at..].find(next)
        {
            at += length + 1;
        }
    }
    at
}

fn unquoted(token: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = token
            .strip_prefix(quote)
            .and_then(|inner| inner.strip_suffix(quote))
            && !inner.contains(quote)
        {
            return inner;
        }
    }
    token
}

fn scaled(digits: &str, factor: u64) -> Option<u64> {
    if !digits.starts_with(|first: char| first.is_ascii_digit())
        || !digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        return None;
    }
    match digits.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => {
            let scaled = digits.parse::<f64>().ok()? * factor as f64;
            (scaled < u64::MAX as f64).then_some(scaled as u64)
        }
    }
}

fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        // 2^53: beyond it JavaScript itself cannot tell neighbours apart.
        (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_are_read_in_every_spelling() {
        for (value, expected) in [
            (json!("150M"), Some(150 << 20)),
            (json!("1G"), Some(1 << 30)),
            (json!("1.5G"), Some(3 << 29)),
            (json!("300k"), Some(300 << 10)),
            (json!("10MB"), Some(10 << 20)),
            (json!("1000"), Some(1000)),
            (json!(2048), Some(2048)),
            (json!("5 potatoes"), None),
            (json!("M"), None),
            (json!(""), None),
            (json!("-1M"), None),
            (json!(-1), None),
            (json!("99999999999999999999G"), None),
            (json!(true), None),
        ] {
            assert_eq!(bytes(&value), expected, "{value}");
        }
    }

    #[test]
    fn spans_are_read_in_every_spelling() {
        for (value, expected) in [
            (json!("1h"), Some(3_600_000)),
            (json!("10s"), Some(10_000)),
            (json!("5m"), Some(300_000)),
            (json!("250ms"), Some(250)),
            (json!("1000"), Some(1000)),
            (json!(1000), Some(1000)),
            (json!("soon"), None),
            (json!("s"), None),
            (json!(-5), None),
        ] {
            assert_eq!(duration(&value), expected, "{value}");
        }
    }

    #[test]
    fn whole_numbers_may_be_text_but_never_have_a_fraction() {
        for (value, expected) in [
            (json!(3), Some(3)),
            (json!(3.0), Some(3)),
            (json!("-2"), Some(-2)),
            (json!("4.0"), Some(4)),
            (json!(1.5), None),
            (json!("max"), None),
            (json!(1e300), None),
            (json!("NaN"), None),
        ] {
            assert_eq!(integer(&value), expected, "{value}");
        }
    }

    #[test]
    fn lines_split_as_pm2_splits_them() {
        for (line, expected) in [
            (r#"a "b c" d='e f'"#, vec!["a", "b c", "d='e f'"]),
            ("  --port   80 ", vec!["--port", "80"]),
            (r#"key="v w" x"#, vec![r#"key="v w""#, "x"]),
            ("'one two'", vec!["one two"]),
            ("don't stop", vec!["don't", "stop"]),
            (r#""a""b""#, vec![r#""a""b""#]),
            ("", vec![]),
        ] {
            assert_eq!(split(line), expected, "{line}");
        }
    }
}
