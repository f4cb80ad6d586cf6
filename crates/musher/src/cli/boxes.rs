//! Boxes of PM2: thin lines, one space of padding, no lines between rows.

use super::output::{Color, paint};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A cell: its text and colour.
pub(super) type Cell = (String, Option<Color>);

/// Draws a box. `widths` include the padding; a text too long is cut with `…`.
/// The header is left out when empty.
pub(super) fn draw(widths: &[usize], header: &[&str], rows: &[Vec<Cell>], color: bool) -> String {
    let mut out = String::new();
    rule(widths, ['┌', '┬', '┐'], color, &mut out);
    if !header.is_empty() {
        let cells: Vec<Cell> = header
            .iter()
            .map(|text| ((*text).to_owned(), Some(Color::Cyan)))
            .collect();
        row(widths, &cells, color, &mut out);
        if !rows.is_empty() {
            rule(widths, ['├', '┼', '┤'], color, &mut out);
        }
    }
    for cells in rows {
        row(widths, cells, color, &mut out);
    }
    rule(widths, ['└', '┴', '┘'], color, &mut out);
    out
}

/// Returns the widths that fit the longest text of each column.
pub(super) fn fitting(rows: &[Vec<Cell>]) -> Vec<usize> {
    let n_columns = rows.first().map_or(0, Vec::len);
    (0..n_columns)
        .map(|column| {
            let widest = rows.iter().map(|cells| cells[column].0.width()).max();
            widest.unwrap_or(0) + 2
        })
        .collect()
}

fn rule(widths: &[usize], [left, middle, right]: [char; 3], color: bool, out: &mut String) {
    let mut line = String::new();
    for (index, width) in widths.iter().enumerate() {
        line.push(if index == 0 { left } else { middle });
        line.extend(std::iter::repeat_n('─', *width));
    }
    line.push(right);
    out.push_str(&paint(&line, Color::Dim, color));
    out.push('\n');
}

fn row(widths: &[usize], cells: &[Cell], color: bool, out: &mut String) {
    let bar = paint("│", Color::Dim, color);
    for (width, (text, cell_color)) in widths.iter().zip(cells) {
        let (shown, used) = cut(text, width.saturating_sub(2));
        let padding = width.saturating_sub(2).saturating_sub(used);
        let shown = match cell_color {
            Some(cell_color) => paint(&shown, *cell_color, color),
            None => shown,
        };
        out.push_str(&bar);
        out.push(' ');
        out.push_str(&shown);
        out.extend(std::iter::repeat_n(' ', padding + 1));
    }
    out.push_str(&bar);
    out.push('\n');
}

/// Returns the text within `limit` columns and the columns it takes. Control
/// characters would move the cursor, so they are shown as `?`.
pub(super) fn cut(text: &str, limit: usize) -> (String, usize) {
    let text = text.replace(|character: char| character.is_control(), "?");
    let width = text.width();
    if width <= limit {
        return (text, width);
    }
    let mut shown = String::new();
    let mut used = 0;
    for character in text.chars() {
        let wide = character.width().unwrap_or(0);
        if used + wide > limit.saturating_sub(1) {
            break;
        }
        used += wide;
        shown.push(character);
    }
    if limit > 0 {
        shown.push('…');
        used += 1;
    }
    (shown, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_columns_not_by_characters() {
        assert_eq!(cut("abcdef", 4), ("abc…".to_owned(), 4));
        assert_eq!(cut("日本語", 5), ("日本…".to_owned(), 5));
        assert_eq!(cut("日本語", 4), ("日…".to_owned(), 3));
        assert_eq!(cut("a\u{1b}[2J", 9).0, "a?[2J");
    }
}
