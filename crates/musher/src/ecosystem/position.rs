//! Lines and columns in the text of a configuration file, as well as text
//! alone can tell: the syntax is not parsed again.

use musher_core::app::attributes;
use serde_json::Value;

/// Returns line and column, from 1, of a byte offset.
pub(super) fn of_offset(source: &str, offset: usize) -> (u32, u32) {
    let before = source.get(..offset).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() as u32 + 1;
    let column = before[line_start..].chars().count() as u32 + 1;
    (line, column)
}

/// Returns where app number `index` writes `key`: the n-th place of the key
/// in the text, n being the number of apps before it that have it too. Of a
/// path like `readiness.http` it is the first key.
pub(super) fn of_key(source: &str, apps: &[Value], index: usize, key: &str) -> Option<(u32, u32)> {
    let key = key.split(['.', '[']).next().unwrap_or(key);
    let same = |spelling: &str| {
        spelling == key
            || attributes::find(spelling)
                .is_some_and(|row| Some(row.name) == attributes::find(key).map(|row| row.name))
    };
    let spelling = apps
        .get(index)?
        .as_object()?
        .keys()
        .find(|spelling| same(spelling))?;
    let n_before = apps[..index]
        .iter()
        .filter(|app| app.get(spelling).is_some())
        .count();
    let offset = key_offsets(source, spelling).nth(n_before)?;
    Some(of_offset(source, offset))
}

/// Returns the byte offsets at which `key` stands before a `:` or `=`,
/// outside of comment lines.
fn key_offsets<'a>(source: &'a str, key: &'a str) -> impl Iterator<Item = usize> + 'a {
    source.match_indices(key).filter_map(move |(at, _)| {
        let line_start = source[..at].rfind('\n').map_or(0, |end| end + 1);
        let line = source[line_start..at].trim_start();
        let commented = line.starts_with("//") || line.starts_with('#') || line.starts_with('*');
        let before = source[..at].chars().next_back();
        let inside =
            before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '.'));
        let after = source[at + key.len()..]
            .trim_start_matches(['"', '\''])
            .trim_start();
        (!commented && !inside && after.starts_with([':', '='])).then_some(at)
    })
}
