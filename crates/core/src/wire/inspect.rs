//! JSON values as Node prints them: `util.inspect(value, {depth: null, colors: false})`.
//!
//! Scripts grep and count `pm2 prettylist`, so the layout is an interface: two
//! spaces of indent, three levels on one line if they fit, long arrays in
//! columns. The rules were learnt from Node's answers, and a test compares with
//! the real one. Node's defaults are fixed here: line of 80, compact 3, 100
//! elements, 10000 characters.

use serde_json::{Map, Number, Value};

/// The line width that a container on one line must keep.
const BREAK_LENGTH: usize = 80;
/// How many innermost levels may share a line.
const COMPACT_LEVELS: usize = 3;
/// Elements of an array that are shown.
const MAX_ELEMENTS: usize = 100;
/// UTF-16 units of a string that are shown.
const MAX_UNITS: usize = 10_000;
/// Strings up to this length are never split at their newlines.
const MIN_SPLIT_UNITS: usize = 16;
/// Arrays up to this many entries are not laid out in columns.
const MAX_UNGROUPED: usize = 6;
/// The most columns of an array.
const MAX_COLUMNS: usize = 15;
/// Columns per level of compactness.
const COLUMNS_PER_LEVEL: usize = 4;
/// A character is about this much taller than wide; columns aim at a square.
const CHARACTER_RATIO: f64 = 2.5;
/// Between two entries of a line: `, `.
const SEPARATOR: usize = 2;

/// Returns the text of `value`, without a trailing newline.
pub fn inspect(value: &Value) -> String {
    let mut printer = Printer {
        indent: 0,
        deepest: 0,
    };
    printer.value(value, 0)
}

struct Printer {
    /// Spaces before a line at this place.
    indent: usize,
    /// Level of the container printed last, the current one included.
    deepest: usize,
}

impl Printer {
    fn value(&mut self, value: &Value, level: usize) -> String {
        match value {
            Value::Null => "null".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => {
                js_number(number.as_f64().expect("json numbers are finite floats"))
            }
            Value::String(text) => self.string(text),
            Value::Array(items) => self.array(items, level),
            Value::Object(fields) => self.object(fields, level),
        }
    }

    fn array(&mut self, items: &[Value], level: usize) -> String {
        if items.is_empty() {
            return "[]".to_owned();
        }
        self.deepest = level;
        let mut entries: Vec<String> = items
            .iter()
            .take(MAX_ELEMENTS)
            .map(|item| self.nested(item, level))
            .collect();
        if let n_hidden @ 1.. = items.len().saturating_sub(MAX_ELEMENTS) {
            entries.push(format!("... {n_hidden} more item{}", plural(n_hidden)));
        }
        let n_entries = entries.len();
        if n_entries > MAX_UNGROUPED {
            entries = group(entries, items, self.indent);
        }
        // Entries laid out in columns already share lines.
        let may_join = entries.len() == n_entries;
        self.container(&entries, ("[", "]"), level, may_join)
    }

    fn object(&mut self, fields: &Map<String, Value>, level: usize) -> String {
        if fields.is_empty() {
            return "{}".to_owned();
        }
        self.deepest = level;
        let entries: Vec<String> = in_js_order(fields)
            .into_iter()
            .map(|(key, value)| format!("{}: {}", property(key), self.nested(value, level)))
            .collect();
        self.container(&entries, ("{", "}"), level, true)
    }

    fn nested(&mut self, value: &Value, level: usize) -> String {
        self.indent += 2;
        let text = self.value(value, level + 1);
        self.indent -= 2;
        text
    }

    fn container(
        &self,
        entries: &[String],
        (open, close): (&str, &str),
        level: usize,
        may_join: bool,
    ) -> String {
        if may_join && self.deepest - level < COMPACT_LEVELS {
            let n_units: usize = entries.iter().map(|entry| units(entry)).sum();
            let fits = n_units + 2 * entries.len() + self.indent + open.len() + 10 <= BREAK_LENGTH;
            if fits && !entries.iter().any(|entry| entry.contains('\n')) {
                return format!("{open} {} {close}", entries.join(", "));
            }
        }
        let line = format!("\n{}", " ".repeat(self.indent));
        let body = entries.join(&format!(",{line}  "));
        format!("{open}{line}  {body}{line}{close}")
    }

    fn string(&self, text: &str) -> String {
        let all: Vec<u16> = text.encode_utf16().collect();
        let shown = &all[..all.len().min(MAX_UNITS)];
        let n_hidden = all.len() - shown.len();
        let trailer = match n_hidden {
            0 => String::new(),
            n => format!("... {n} more character{}", plural(n)),
        };
        let room = (BREAK_LENGTH as isize) - (self.indent as isize) - 4;
        if shown.len() <= MIN_SPLIT_UNITS || (shown.len() as isize) <= room {
            return quote(shown) + &trailer;
        }
        let lines: Vec<String> = shown
            .split_inclusive(|&unit| unit == u16::from(b'\n'))
            .map(quote)
            .collect();
        let between = format!(" +\n{}", " ".repeat(self.indent + 2));
        lines.join(&between) + &trailer
    }
}

/// The entries of a long array in aligned columns, one line per entry of the
/// result; unchanged where columns would not help.
fn group(entries: Vec<String>, items: &[Value], indent: usize) -> Vec<String> {
    // The line about hidden elements is not part of the grid.
    let n_cells = items.len().min(MAX_ELEMENTS);
    let widths: Vec<usize> = entries[..n_cells]
        .iter()
        .map(|entry| width(entry))
        .collect();
    let total: usize = widths.iter().map(|width| width + SEPARATOR).sum();
    let widest = widths.iter().copied().max().unwrap_or(0);
    let cell = widest + SEPARATOR;
    let dense = total as f64 / cell as f64 > 5.0 || widest <= 6;
    if cell * 3 + indent >= BREAK_LENGTH || !dense {
        return entries;
    }
    let bias = (cell as f64 - total as f64 / entries.len() as f64).sqrt();
    let biased = (cell as f64 - 3.0 - bias).max(1.0);
    let square = (CHARACTER_RATIO * biased * n_cells as f64).sqrt() / biased;
    let n_columns = ((square + 0.5).floor() as usize)
        .min((BREAK_LENGTH - indent) / cell)
        .min(COMPACT_LEVELS * COLUMNS_PER_LEVEL)
        .min(MAX_COLUMNS);
    if n_columns <= 1 {
        return entries;
    }
    let columns: Vec<usize> = (0..n_columns)
        .map(|column| {
            widths
                .iter()
                .skip(column)
                .step_by(n_columns)
                .copied()
                .max()
                .unwrap_or(0)
        })
        .collect();
    // Node asks the first `entries.len()` elements; with hidden ones that is one more.
    let right = items.iter().take(entries.len()).all(Value::is_number);
    let mut lines: Vec<String> = entries[..n_cells]
        .chunks(n_columns)
        .zip(widths.chunks(n_columns))
        .map(|(cells, widths)| grid_line(cells, widths, &columns, right))
        .collect();
    lines.extend(entries[n_cells..].iter().cloned());
    lines
}

/// One line of a grid: numbers to the right, everything else to the left.
fn grid_line(cells: &[String], widths: &[usize], columns: &[usize], right: bool) -> String {
    let mut line = String::new();
    let last = cells.len() - 1;
    for (i, cell) in cells.iter().enumerate() {
        let padding = " ".repeat(columns[i] - widths[i]);
        match (right, i == last) {
            (true, true) => line += &format!("{padding}{cell}"),
            (true, false) => line += &format!("{padding}{cell}, "),
            (false, true) => line += cell,
            (false, false) => line += &format!("{cell}, {padding}"),
        }
    }
    line
}

/// JavaScript lists integer-like keys first, ascending.
fn in_js_order(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(key, _)| array_index(key).unwrap_or(u32::MAX));
    sorted
}

/// The number of a key JavaScript treats as an array index.
fn array_index(key: &str) -> Option<u32> {
    let index: u32 = key.parse().ok()?;
    (index != u32::MAX && index.to_string() == key).then_some(index)
}

fn property(key: &str) -> String {
    let mut chars = key.chars();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = chars
        .next()
        .is_some_and(|c| is_word(c) && !c.is_ascii_digit());
    if key == "__proto__" {
        "['__proto__']".to_owned()
    } else if starts && chars.all(is_word) {
        key.to_owned()
    } else {
        quote(&key.encode_utf16().collect::<Vec<_>>())
    }
}

/// The text in the quotes that need the fewest escapes.
fn quote(text: &[u16]) -> String {
    let has = |c: char| text.contains(&(c as u16));
    let has_interpolation = text
        .windows(2)
        .any(|two| two == [u16::from(b'$'), u16::from(b'{')]);
    let mark = if !has('\'') {
        '\''
    } else if !has('"') {
        '"'
    } else if !has('`') && !has_interpolation {
        '`'
    } else {
        '\''
    };
    let mut out = String::from(mark);
    for unit in char::decode_utf16(text.iter().copied()) {
        match unit {
            Ok('\'') if mark == '\'' => out.push_str("\\'"),
            Ok('\\') => out.push_str("\\\\"),
            Ok('\u{8}') => out.push_str("\\b"),
            Ok('\t') => out.push_str("\\t"),
            Ok('\n') => out.push_str("\\n"),
            Ok('\u{c}') => out.push_str("\\f"),
            Ok('\r') => out.push_str("\\r"),
            Ok(c) if c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c) => {
                out.push_str(&format!("\\x{:02X}", c as u32));
            }
            Ok(c) => out.push(c),
            // A cut at MAX_UNITS can leave half of a pair.
            Err(half) => out.push_str(&format!("\\u{:x}", half.unpaired_surrogate())),
        }
    }
    out.push(mark);
    out
}

/// The number as JavaScript prints it (ECMA-262, Number::toString).
fn js_number(number: f64) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let (sign, digits, point) = shortest(number);
    let n_digits = digits.len() as i32;
    let exponent = point - 1;
    let body = match point {
        _ if point > 21 || point <= -6 => {
            let fraction = match &digits[1..] {
                "" => String::new(),
                rest => format!(".{rest}"),
            };
            format!("{}{fraction}e{exponent:+}", &digits[..1])
        }
        _ if point <= 0 => format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
        _ if point < n_digits => {
            let (whole, fraction) = digits.split_at(point as usize);
            format!("{whole}.{fraction}")
        }
        _ => format!("{digits}{}", "0".repeat((point - n_digits) as usize)),
    };
    format!("{sign}{body}")
}

/// Sign, shortest digits that read back as `number`, and the decimal point's
/// place among them. serde_json's digits are taken because they break a tie
/// to the even one as V8's do; Rust's own do not.
fn shortest(number: f64) -> (&'static str, String, i32) {
    let text = Number::from_f64(number).map_or_else(String::new, |number| number.to_string());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().expect("the exponent is a small integer");
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let n_leading = (all.len() - digits.len()) as i32;
    let point = whole.len() as i32 - n_leading + exponent;
    (sign, digits.trim_end_matches('0').to_owned(), point)
}

fn plural(n: usize) -> &'static str {
    if n > 1 { "s" } else { "" }
}

/// JavaScript's `length`.
fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Terminal columns, as far as lists of processes need them: East Asian wide
/// characters and emoji take two, combining marks none.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match c as u32 {
            0x300..=0x36f | 0x200b..=0x200f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfeff => 0,
            0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3 => 2,
            0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff01..=0xff60 | 0xffe0..=0xffe6 => 2,
            0x1f300..=0x1f64f | 0x1f680..=0x1f6c5 | 0x1f900..=0x1f9ff | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(value: Value, expected: &str) {
        assert_eq!(inspect(&value), expected);
    }

    #[test]
    fn small_containers_stand_on_one_line() {
        check(json!([]), "[]");
        check(json!({}), "{}");
        check(json!(["a", "b"]), "[ 'a', 'b' ]");
        check(json!({"a": 1, "b-c": null}), "{ a: 1, 'b-c': null }");
    }

    #[test]
    fn integer_keys_come_first() {
        check(
            json!({"b": 1, "10": 2, "9": 3, "01": 4}),
            "{ '9': 3, '10': 2, b: 1, '01': 4 }",
        );
    }

    #[test]
    fn only_three_levels_share_a_line() {
        check(json!({"a": {"b": {"c": {}}}}), "{ a: { b: { c: {} } } }");
        check(
            json!({"a": {"b": {"c": {"d": 1}}}}),
            "{\n  a: { b: { c: { d: 1 } } }\n}",
        );
    }

    #[test]
    fn quotes_are_chosen_to_need_no_escapes() {
        check(json!("a'b"), "\"a'b\"");
        check(json!("a'\"b"), "`a'\"b`");
        check(json!("a'\"`b"), "'a\\'\"`b'");
        check(json!("\u{1b}\n\u{7f}"), "'\\x1B\\n\\x7F'");
    }

    #[test]
    fn numbers_are_javascripts() {
        for (number, text) in [
            (json!(0.0), "0"),
            (json!(-0.0), "-0"),
            (json!(1e21), "1e+21"),
            (json!(123456789012345680000.0), "123456789012345680000"),
            (json!(1.5e-7), "1.5e-7"),
            (json!(0.000001), "0.000001"),
            (json!(-12.5), "-12.5"),
            // The double is exactly …714.25: the tie goes to the even digit.
            (json!(1_128_993_445_446_714.3), "1128993445446714.2"),
            (json!(5e-324), "5e-324"),
            (json!(1200.0), "1200"),
            (json!(9007199254740993_i64), "9007199254740992"),
        ] {
            check(number, text);
        }
    }

    #[test]
    fn long_arrays_stand_in_columns_and_end_at_a_hundred() {
        let text = inspect(&json!((0..101).collect::<Vec<_>>()));
        assert!(text.starts_with("[\n   0,  1,  2,"), "{text}");
        assert!(text.ends_with("... 1 more item\n]"), "{text}");
    }
}
