//! The history of apps in the database: how runs ended, how reloads went.
//!
//! Entries are for people; the daemon never decides by them. They are bounded
//! per app, so that one app in a crash loop does not push out the others'.

use rusqlite::{Connection, Transaction, params};

/// Entries kept of each app.
const KEPT_PER_APP: u32 = 500;

/// Entries that wait for the disk; older ones are dropped beyond.
pub(super) const MAX_WAITING: usize = 1024;

/// Entries a client gets at most.
pub(crate) const MAX_READ: u32 = 1000;

/// One entry: JSON under the name of its app.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Name of the app.
    pub(crate) app: String,
    /// When, ms since the epoch.
    pub(crate) at: i64,
    /// What.
    pub(crate) json: String,
}

/// Makes the table; a database of an older musher has none.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS history
             (id INTEGER PRIMARY KEY, app TEXT NOT NULL, at INTEGER NOT NULL, entry TEXT NOT NULL);
         CREATE INDEX IF NOT EXISTS history_app ON history (app, id);",
    )
}

pub(super) fn write<'a>(
    transaction: &Transaction<'_>,
    entries: impl Iterator<Item = &'a Entry>,
) -> rusqlite::Result<()> {
    for entry in entries {
        transaction
            .prepare_cached("INSERT INTO history (app, at, entry) VALUES (?1, ?2, ?3)")?
            .execute(params![entry.app, entry.at, entry.json])?;
        transaction
            .prepare_cached(
                "DELETE FROM history WHERE app = ?1 AND id <= (SELECT id FROM history
                     WHERE app = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![entry.app, KEPT_PER_APP])?;
    }
    Ok(())
}

/// Returns the newest entries, the oldest first.
pub(super) fn read(
    connection: &Connection,
    app: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT entry FROM (SELECT id, entry FROM history WHERE ?1 IS NULL OR app = ?1
             ORDER BY id DESC LIMIT ?2) ORDER BY id",
    )?;
    let rows = statement.query_map(params![app, limit.min(MAX_READ)], |row| row.get(0))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(app: &str, n: u32) -> Entry {
        Entry {
            app: app.to_owned(),
            at: i64::from(n),
            json: n.to_string(),
        }
    }

    #[test]
    fn an_app_in_a_crash_loop_keeps_the_newest_and_leaves_the_others() {
        let connection = Connection::open_in_memory().unwrap();
        prepare(&connection).unwrap();
        let transaction = connection.unchecked_transaction().unwrap();
        let quiet = entry("quiet", 7);
        let loud: Vec<Entry> = (0..KEPT_PER_APP + 3).map(|n| entry("loud", n)).collect();
        write(&transaction, std::iter::once(&quiet).chain(&loud)).unwrap();
        transaction.commit().unwrap();
        let all = read(&connection, Some("loud"), MAX_READ).unwrap();
        assert_eq!(all.len(), KEPT_PER_APP as usize);
        assert_eq!(all.first().unwrap(), "3");
        assert_eq!(read(&connection, Some("quiet"), 10).unwrap(), ["7"]);
        assert_eq!(read(&connection, None, 2).unwrap(), ["501", "502"]);
    }
}
