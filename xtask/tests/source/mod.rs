//! As much of Rust's grammar as the rules of `tidy` need.
//!
//! Comments and literals are blanked, braces are counted. It never parses:
//! a real parser would be a dependency for eight rules.

/// A function found in a file.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of `fn`, from 1.
    pub(crate) line: usize,
    /// From the line of `fn` to that of the closing brace.
    pub(crate) n_lines: usize,
    /// Whether `// tidy: long` stands on the line above.
    pub(crate) exempt: bool,
}

/// Returns the words of `text`: runs of letters, digits and underscores.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Returns `text` with every comment and literal replaced by spaces, byte for
/// byte, so that offsets and line numbers stay right.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => find(bytes, at + 2, b"*/") + 2,
            b'"' => quoted(bytes, at, b'"'),
            b'r' if !in_word(bytes, at) => raw(bytes, at),
            b'\'' => character(bytes, at),
            _ => at,
        };
        let end = end.min(bytes.len());
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole literals are replaced, never half a character")
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    at > 0
        && bytes[at - 1] != b'b'
        && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(what.len())
        .position(|w| w == what)
        .map_or(bytes.len(), |n| from + n)
}

fn quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of `r"…"` or `r#"…"#`; `start` itself if it is only the letter r.
fn raw(bytes: &[u8], start: usize) -> usize {
    let n_hashes = bytes[start + 1..]
        .iter()
        .take_while(|b| **b == b'#')
        .count();
    let open = start + 1 + n_hashes;
    if bytes.get(open) != Some(&b'"') {
        return start;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(vec![b'#'; n_hashes]).collect();
    find(bytes, open + 1, &close) + close.len()
}

/// The end of a character literal; `start` itself for a lifetime.
fn character(bytes: &[u8], start: usize) -> usize {
    let rest = std::str::from_utf8(&bytes[start + 1..]).unwrap_or_default();
    let mut chars = rest.chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(bytes, start, b'\''),
        (Some(c), Some('\'')) => start + 2 + c.len_utf8(),
        _ => start,
    }
}

/// Returns the offset of the brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (n, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return open + n;
                }
            }
            _ => {}
        }
    }
    code.len()
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

/// Returns how many lines of `text` are not inside a `#[cfg(test)] mod`.
pub(crate) fn production_lines(text: &str) -> usize {
    let code = blank(text);
    let mut n_lines = text.lines().count();
    let mut from = 0;
    while let Some(n) = code[from..].find("#[cfg(test)]") {
        let start = from + n;
        let rest = code[start + "#[cfg(test)]".len()..].trim_start();
        let open = code[start..].find('{').map(|n| start + n);
        let semicolon = code[start..].find(';').map_or(code.len(), |n| start + n);
        from = match open {
            Some(open) if rest.starts_with("mod ") && open < semicolon => closing(&code, open),
            _ => start + 1,
        };
        if from > start + 1 {
            n_lines -= line_of(&code, from) - line_of(&code, start) + 1;
        }
    }
    n_lines
}

/// Returns every function with a body, in the order of the file.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let code = blank(text);
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let name: String = code[start + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if in_word(code.as_bytes(), start) || name.is_empty() {
            continue;
        }
        let open = code[start..].find('{').map(|n| start + n);
        let semicolon = signature_end(&code, start);
        let Some(open) = open.filter(|open| *open < semicolon) else {
            continue;
        };
        let line = line_of(&code, start);
        let above = line
            .checked_sub(2)
            .and_then(|n| text.lines().nth(n))
            .unwrap_or_default();
        found.push(Function {
            name,
            line,
            n_lines: line_of(&code, closing(&code, open)) - line + 1,
            exempt: above.trim_start().starts_with("// tidy: long"),
        });
    }
    found
}

/// The offset of the `;` that ends a signature without a body; one inside
/// brackets belongs to an array type.
fn signature_end(code: &str, start: usize) -> usize {
    let mut depth = 0i32;
    for (n, byte) in code.as_bytes()[start..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth <= 0 => return start + n,
            _ => {}
        }
    }
    code.len()
}
