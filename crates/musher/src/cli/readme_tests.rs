//! README's table of compatibility against the tables the program runs on.
//!
//! A page that says what works is believed, so it must not fall behind: every
//! verb and attribute stands in it once, in the column that is true.

use super::options::WITHOUT_EFFECT;
use super::verbs::{NOT_IN_THIS_VERSION, VERBS};
use musher_core::app::attributes::{ATTRIBUTES, Stage};
use std::collections::BTreeSet;

const README: &str = include_str!("../../../../README.md");

/// The columns after the area.
enum Column {
    Works = 2,
    Stored = 3,
    Absent = 4,
}

/// Returns the names in backquotes of a column, over all rows whose area
/// begins with `area`. Words with blanks or stars are explanations.
fn names(area: &str, column: Column) -> BTreeSet<&'static str> {
    let start = format!("| {area}");
    let at = column as usize;
    let mut found = BTreeSet::new();
    for row in README.lines().filter(|row| row.starts_with(&start)) {
        let cell = row.split('|').nth(at).expect("a row has four columns");
        for name in cell.split('`').skip(1).step_by(2) {
            if !name.contains([' ', '*']) {
                assert!(found.insert(name), "{name} stands in README twice");
            }
        }
    }
    found
}

fn attributes(stage: Stage) -> BTreeSet<&'static str> {
    let rows = ATTRIBUTES.iter().filter(|row| row.stage == stage);
    rows.map(|row| row.name).collect()
}

#[test]
fn every_attribute_stands_in_its_column() {
    assert_eq!(
        names("attributes", Column::Works),
        attributes(Stage::Works),
        "attributes that work: README on the left, the table on the right"
    );
    assert_eq!(
        names("attributes", Column::Stored),
        attributes(Stage::Stored),
        "attributes without an effect: README on the left, the table on the right"
    );
}

#[test]
fn every_verb_stands_in_its_column() {
    let mut known = names("verbs", Column::Works);
    known.append(&mut names("verbs", Column::Stored));
    let table: BTreeSet<&str> = VERBS.iter().map(|verb| verb.name).collect();
    assert_eq!(known, table);
    let absent: BTreeSet<&str> = NOT_IN_THIS_VERSION.iter().copied().collect();
    assert_eq!(names("verbs", Column::Absent), absent);
}

#[test]
fn every_option_without_an_effect_is_named() {
    let named = names("options", Column::Stored);
    let named: BTreeSet<&str> = named.iter().map(|n| n.trim_start_matches('-')).collect();
    assert_eq!(named, WITHOUT_EFFECT.iter().copied().collect());
}
