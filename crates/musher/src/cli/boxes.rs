//! Boxes of PM2: thin lines, one space of padding, no lines between rows.
//!
//! comfy-table lays them out. It colours by crossterm, in codes that are not
//! PM2's, and never its lines; so it draws bars and ends of rows as control
//! characters, which no cell contains, and colours are put in afterwards.

use super::output::{Color, paint};
use comfy_table::{
    ColumnConstraint, ContentArrangement, ContentLineStyle, LineStyle, Row, Table, TableStyle,
    Width,
};
use unicode_width::UnicodeWidthStr;

/// A cell: its text and colour.
pub(super) type Cell = (String, Option<Color>);

/// What happens to a text wider than its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// It ends with `…`.
    Cut,
    /// It goes on in the next line.
    Wrap,
}

/// Widest column; what is longer overflows. Several of them still fit the
/// 16 bits of comfy-table.
const MAX_WIDTH: usize = 8192;

/// Stands for the bar between cells.
const BAR: char = '\u{1}';
/// Fills the line between two rows, which is left out.
const END_OF_ROW: char = '\u{2}';

/// PM2's lines.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┌', '─', '┬', '┐'))
    .header_lines(ContentLineStyle::new(BAR, BAR, BAR))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'))
    .content_lines(ContentLineStyle::new(BAR, BAR, BAR))
    .row_separator(LineStyle::new(
        END_OF_ROW, END_OF_ROW, END_OF_ROW, END_OF_ROW,
    ))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));

/// Draws a box. `widths` include the padding. The header is left out when
/// empty.
pub(super) fn draw(
    widths: &[usize],
    header: &[&str],
    rows: &[Vec<Cell>],
    overflow: Overflow,
    color: bool,
) -> String {
    let mut table = table(widths, header, rows, overflow);
    let mut colors: Vec<Vec<Option<Color>>> = Vec::new();
    if !header.is_empty() {
        colors.push(vec![Some(Color::Heading); header.len()]);
        if rows.is_empty() {
            table.style_mut().header_separator = LineStyle::none();
        }
    }
    colors.extend(
        rows.iter()
            .map(|cells| cells.iter().map(|cell| cell.1).collect()),
    );
    let mut n_rows = 0;
    let mut out = String::new();
    for line in table.lines() {
        match line.chars().next() {
            Some(BAR) => content(&line, &colors[n_rows], color, &mut out),
            Some(END_OF_ROW) => n_rows += 1,
            Some(first) => {
                n_rows += usize::from(first == '├');
                out.push_str(&paint(&line, Color::Dim, color));
                out.push('\n');
            }
            None => (),
        }
    }
    out
}

fn table(widths: &[usize], header: &[&str], rows: &[Vec<Cell>], overflow: Overflow) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_truncation_indicator("…");
    if overflow == Overflow::Cut {
        // A cut is made in the last column, not at the last space.
        table.set_delimiter(END_OF_ROW);
    }
    let row = |texts: &mut dyn Iterator<Item = &str>| {
        let mut row = Row::from(texts.map(printable).collect::<Vec<String>>());
        if overflow == Overflow::Cut {
            row.max_height(1);
        }
        row
    };
    if !header.is_empty() {
        table.set_header(row(&mut header.iter().copied()));
    }
    for cells in rows {
        table.add_row(row(&mut cells.iter().map(|cell| cell.0.as_str())));
    }
    table.set_constraints(widths.iter().map(|width| {
        let width = u16::try_from((*width).min(MAX_WIDTH)).unwrap_or(u16::MAX);
        ColumnConstraint::Absolute(Width::Fixed(width))
    }));
    table
}

/// Returns the widths that fit the longest text of each column.
pub(super) fn fitting(rows: &[Vec<Cell>]) -> Vec<usize> {
    let n_columns = rows.first().map_or(0, Vec::len);
    (0..n_columns)
        .map(|column| {
            let texts = rows.iter().map(|cells| printable(&cells[column].0).width());
            texts.max().unwrap_or(0) + 2
        })
        .collect()
}

/// Writes a line of a row: bars, and the texts between them in their colours.
fn content(line: &str, colors: &[Option<Color>], color: bool, out: &mut String) {
    let bar = paint("│", Color::Dim, color);
    let cells = line.trim_matches(BAR).split(BAR);
    for (cell, cell_color) in cells.zip(colors) {
        let text = cell.trim_end_matches(' ').trim_start_matches(' ');
        let n_before = cell.len() - cell.trim_start_matches(' ').len();
        out.push_str(&bar);
        match cell_color.filter(|_| !text.is_empty()) {
            Some(cell_color) => {
                let (before, rest) = cell.split_at(n_before);
                out.push_str(before);
                out.push_str(&paint(text, cell_color, color));
                out.push_str(&rest[text.len()..]);
            }
            None => out.push_str(cell),
        }
    }
    out.push_str(&bar);
    out.push('\n');
}

/// Returns a text without control characters: they would move the cursor.
pub(super) fn printable(text: &str) -> String {
    text.replace(|character: char| character.is_control(), "?")
}

/// Returns a text broken into lines of at most `limit` columns.
pub(super) fn wrap(text: &str, limit: usize) -> String {
    let rows = [vec![(text.to_owned(), None)]];
    let mut table = table(&[limit], &[], &rows, Overflow::Wrap);
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
    }
    table.load_style(TableStyle::new());
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end_matches(' ').to_owned())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Vec<Cell> {
        vec![(text.to_owned(), None)]
    }

    #[test]
    fn texts_are_cut_by_columns_not_by_characters() {
        for (text, width, expected) in [
            ("abcdef", 4, "│ abc… │"),
            ("日本語", 5, "│ 日本… │"),
            ("日本語", 4, "│ 日…  │"),
            ("日本語", 1, "│ … │"),
            ("👩‍👩‍👧 family", 5, "│ 👩‍👩‍👧 f… │"),
            ("a b c d", 5, "│ a b … │"),
            ("a\u{1b}[2J", 5, "│ a?[2J │"),
            ("a\nb", 3, "│ a?b │"),
            ("", 3, "│     │"),
        ] {
            let drawn = draw(&[width + 2], &[], &[plain(text)], Overflow::Cut, false);
            assert_eq!(drawn.lines().nth(1), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_wrapped_text_loses_nothing_and_keeps_the_colour_of_its_row() {
        let row = |label: &str, value: &str, color| {
            vec![(label.to_owned(), None), (value.to_owned(), color)]
        };
        let rows = [
            row("path", "/srv/application.js", None),
            row("status", "online", Some(Color::Green)),
        ];
        let drawn = draw(&[8, 12], &[], &rows, Overflow::Wrap, false);
        let expected = "\
┌────────┬────────────┐
│ path   │ /srv/appli │
│        │ cation.js  │
│ status │ online     │
└────────┴────────────┘
";
        assert_eq!(drawn, expected);
        let colored = draw(&[8, 12], &[], &rows, Overflow::Wrap, true);
        assert!(colored.contains("\u{1b}[32monline\u{1b}[39m     \u{1b}[90m│"));
        assert!(colored.contains(" /srv/appli "), "{colored}");
    }

    #[test]
    fn a_column_is_never_wider_than_its_bound() {
        let long = "x".repeat(3 * MAX_WIDTH);
        let rows = [plain(&long)];
        let drawn = draw(&fitting(&rows), &[], &rows, Overflow::Cut, false);
        assert!(drawn.lines().all(|line| line.width() == MAX_WIDTH + 2));
    }
}
