//! What must survive the daemon, in one SQLite database in the home.
//!
//! One row per process, newest state wins. Writing happens on a thread of its
//! own: the loop hands over the newest record and goes on, and answers wait
//! for their turn with [`Store::after_writing`]. The hand-over holds at most one
//! record per process, so it is bounded by the number of processes, however
//! slow the disk is. Nothing but the history is read after the start.

use super::journal;
use crate::failpoint;
pub(crate) use damage::StoreError;
use history::Entry;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

mod damage;
pub(crate) mod history;

/// Version of the tables; a newer one is refused, never misread.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// Key of the highest run id used.
const LAST_RUN: &str = "last_run";

/// What the previous daemon left.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Records by process id, ascending.
    pub records: Vec<(u32, String)>,
    /// The highest run id ever used.
    pub last_run: u64,
    /// TLS ticket keys by name.
    pub(crate) tickets: Vec<(String, String)>,
    /// Where a damaged database was put aside, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// The writer's side of the hand-over.
pub(crate) struct Store {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

/// Something to be done when everything handed over before is written.
pub(crate) type Then = Box<dyn FnOnce() + Send>;

/// A question about the history, answered on the writer's thread.
struct Query {
    app: Option<String>,
    limit: u32,
    answer: Box<dyn FnOnce(Result<Vec<String>, String>) + Send>,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    /// Bounded by the calls in flight, whose answers these are.
    then: Vec<Then>,
    /// Bounded by the calls in flight too.
    queries: Vec<Query>,
    is_writing: bool,
    closing: bool,
    n_failed: u64,
}

/// What is written in one transaction.
#[derive(Default)]
struct Batch {
    /// Newest record per process; `None` erases.
    records: BTreeMap<u32, Option<String>>,
    /// Newest TLS ticket keys per name.
    tickets: BTreeMap<String, String>,
    /// At most [`history::MAX_WAITING`].
    history: VecDeque<Entry>,
    last_run: Option<u64>,
}

impl Store {
    /// Opens the database, reads what is there, and starts the writer.
    ///
    /// A damaged file is renamed to `<file>.damaged`, or to the next such name
    /// that is free, and a fresh one is used.
    ///
    /// # Errors
    /// [`StoreError::Newer`], or a file system that refuses a fresh file too.
    pub(crate) fn open(path: &Path) -> Result<(Store, Loaded), StoreError> {
        let (connection, loaded) = match load(path) {
            Ok(opened) => opened,
            Err(error) if !error.is_damage() => return Err(error),
            Err(_) => {
                let aside = damage::free_name(path);
                for suffix in ["-wal", "-shm"] {
                    let side = PathBuf::from(format!("{}{suffix}", path.display()));
                    // Without its log the damaged file is all there is to keep.
                    let _ = std::fs::remove_file(side);
                }
                let _ = std::fs::rename(path, &aside);
                let (connection, mut loaded) = load(path)?;
                loaded.set_aside = Some(aside);
                (connection, loaded)
            }
        };
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || write_until_closed(&connection, &for_thread))
            .ok();
        Ok((Store { shared, thread }, loaded))
    }

    /// Hands over the newest records of processes, which are written together;
    /// `None` forgets a process.
    pub(crate) fn save(&self, records: Vec<(u32, Option<String>)>, last_run: u64) {
        let mut pending = lock(&self.shared.pending);
        pending.batch.records.extend(records);
        pending.batch.last_run = Some(last_run);
        self.shared.wake.notify_one();
    }

    /// Hands over TLS ticket keys, which all workers of an app share.
    pub(crate) fn save_ticket(&self, name: String, data: String) {
        lock(&self.shared.pending).batch.tickets.insert(name, data);
        self.shared.wake.notify_one();
    }

    /// Adds to the history of an app.
    pub(crate) fn record(&self, entry: Entry) {
        let mut pending = lock(&self.shared.pending);
        pending.batch.remember(entry);
        self.shared.wake.notify_one();
    }

    /// Reads the newest entries of the history, those of one app or all, and
    /// calls `answer` with them, the oldest first.
    pub(crate) fn read_history(
        &self,
        app: Option<String>,
        limit: u32,
        answer: Box<dyn FnOnce(Result<Vec<String>, String>) + Send>,
    ) {
        if self.thread.is_none() {
            return answer(Err("the state database has no writer".to_owned()));
        }
        let query = Query { app, limit, answer };
        lock(&self.shared.pending).queries.push(query);
        self.shared.wake.notify_one();
    }

    /// Calls `then` once everything handed over before is written, or could not
    /// be: a full disk costs what is stored, not the answer.
    pub(crate) fn after_writing(&self, then: Then) {
        let mut pending = lock(&self.shared.pending);
        let is_idle = pending.batch.is_empty() && pending.then.is_empty() && !pending.is_writing;
        if is_idle || self.thread.is_none() {
            drop(pending);
            then();
            return;
        }
        pending.then.push(then);
        self.shared.wake.notify_one();
    }

    /// Calls `then` on the writer's thread, after what was handed over before:
    /// for small files the loop must not wait for.
    pub(crate) fn in_turn(&self, then: Then) {
        if self.thread.is_none() {
            return then();
        }
        lock(&self.shared.pending).then.push(then);
        self.shared.wake.notify_one();
    }

    /// Returns how many transactions failed, for the daemon's log.
    pub(crate) fn n_failed(&self) -> u64 {
        lock(&self.shared.pending).n_failed
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        lock(&self.shared.pending).closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing left to flush.
            let _ = thread.join();
        }
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    // The data is plain and whole after every statement: poison says nothing.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(path: &Path) -> Result<(Connection, Loaded), StoreError> {
    let wrap = |source| StoreError::Database {
        path: path.to_owned(),
        source,
    };
    damage::has_header(path)?;
    make_private(path);
    let connection = Connection::open(path).map_err(wrap)?;
    let found = prepare(&connection).map_err(wrap)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    damage::has_every_record(&connection, path)?;
    let loaded = read(&connection).map_err(wrap)?;
    Ok((connection, loaded))
}

/// Returns the records by process id, ascending, without changing anything; none
/// without a database.
///
/// # Errors
/// [`StoreError`], also for a damaged file.
pub(super) fn peek(path: &Path) -> Result<Vec<(u32, String)>, StoreError> {
    let wrap = |source| StoreError::Database {
        path: path.to_owned(),
        source,
    };
    if !path.exists() {
        return Ok(Vec::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(wrap)?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(wrap)?;
    if found > SCHEMA_VERSION {
        let path = path.to_owned();
        return Err(StoreError::Newer { path, found });
    }
    Ok(read(&connection).map_err(wrap)?.records)
}

/// Creates the file for its owner only: it holds environments. SQLite gives its
/// side files the same mode.
fn make_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    // What is wrong with it, SQLite says.
    let _ = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
}

/// Sets the database up and returns the version of its tables.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    // WAL with NORMAL loses nothing when the daemon dies, only when the machine
    // does, and then the apps are gone too (sqlite.org/wal.html).
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -256)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    history::prepare(connection)?;
    if found == 0 {
        connection.execute_batch(
            "BEGIN;
             CREATE TABLE IF NOT EXISTS process (pm_id INTEGER PRIMARY KEY, record TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS ticket (name TEXT PRIMARY KEY, data TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
             COMMIT;",
        )?;
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        return Ok(SCHEMA_VERSION);
    }
    Ok(found)
}

fn read(connection: &Connection) -> rusqlite::Result<Loaded> {
    let mut statement = connection.prepare("SELECT pm_id, record FROM process ORDER BY pm_id")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let records = rows.collect::<rusqlite::Result<_>>()?;
    let last_run: Option<i64> = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [LAST_RUN], |row| {
            row.get(0)
        })
        .optional()?;
    let last_run = last_run
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(0);
    let mut statement = connection.prepare("SELECT name, data FROM ticket")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let tickets = rows.collect::<rusqlite::Result<_>>()?;
    Ok(Loaded {
        records,
        last_run,
        tickets,
        set_aside: None,
    })
}

fn write_until_closed(connection: &Connection, shared: &Shared) {
    let mut is_failing = false;
    loop {
        let (batch, then, queries, closing) = {
            let mut pending = lock(&shared.pending);
            pending.is_writing = false;
            while pending.is_idle() && !pending.closing {
                pending = shared
                    .wake
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            pending.is_writing = true;
            let batch = std::mem::take(&mut pending.batch);
            let then = std::mem::take(&mut pending.then);
            let queries = std::mem::take(&mut pending.queries);
            (batch, then, queries, pending.closing)
        };
        let written = if batch.is_empty() {
            Ok(())
        } else {
            failpoint::hit("store-before");
            let written = write(connection, &batch);
            failpoint::hit("store-after");
            written
        };
        tell(written.as_ref().err(), &mut is_failing);
        for then in then {
            then();
        }
        for query in queries {
            let entries = history::read(connection, query.app.as_deref(), query.limit);
            (query.answer)(entries.map_err(|error| error.to_string()));
        }
        if written.is_err() {
            put_back(shared, batch);
        }
        if closing {
            return;
        }
    }
}

/// Says once that writing fails, and once that it works again.
fn tell(error: Option<&rusqlite::Error>, is_failing: &mut bool) {
    match error {
        Some(error) if !*is_failing => journal::error(&format!(
            "the state cannot be stored ({error}): it is kept in memory and tried again; \
             free some space, until then a new daemon would not know what changed"
        )),
        None if *is_failing => journal::line("the state is stored again"),
        Some(_) | None => {}
    }
    *is_failing = error.is_some();
}

/// Keeps what could not be written (full disk) for the next try, unless a
/// newer record came meanwhile.
fn put_back(shared: &Shared, batch: Batch) {
    let mut pending = lock(&shared.pending);
    pending.n_failed += 1;
    pending.batch.put_under(batch);
    if pending.closing {
        return;
    }
    // Not at once again: a full disk stays full for a while.
    let retry = std::time::Duration::from_millis(500);
    drop(shared.wake.wait_timeout(pending, retry));
}

fn write(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for (pm_id, record) in &batch.records {
        match record {
            Some(record) => transaction
                .prepare_cached("INSERT OR REPLACE INTO process (pm_id, record) VALUES (?1, ?2)")?
                .execute(params![pm_id, record])?,
            None => transaction
                .prepare_cached("DELETE FROM process WHERE pm_id = ?1")?
                .execute([pm_id])?,
        };
    }
    for (name, data) in &batch.tickets {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO ticket (name, data) VALUES (?1, ?2)")?
            .execute([name, data])?;
    }
    history::write(&transaction, batch.history.iter())?;
    if let Some(last_run) = batch.last_run {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
            .execute(params![
                LAST_RUN,
                i64::try_from(last_run).unwrap_or(i64::MAX)
            ])?;
    }
    transaction.commit()
}

impl Pending {
    fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.then.is_empty() && self.queries.is_empty()
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.tickets.is_empty() && self.history.is_empty()
    }

    fn remember(&mut self, entry: Entry) {
        if self.history.len() == history::MAX_WAITING {
            self.history.pop_front();
        }
        self.history.push_back(entry);
    }

    /// Adds what an older batch has and this one has not.
    fn put_under(&mut self, older: Batch) {
        for (pm_id, record) in older.records {
            self.records.entry(pm_id).or_insert(record);
        }
        for (name, data) in older.tickets {
            self.tickets.entry(name).or_insert(data);
        }
        let newer = std::mem::replace(&mut self.history, older.history);
        for entry in newer {
            self.remember(entry);
        }
        self.last_run = self.last_run.or(older.last_run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(path: &Path) -> Loaded {
        let (store, loaded) = Store::open(path).unwrap();
        drop(store);
        loaded
    }

    #[test]
    fn the_newest_record_of_each_process_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let (store, loaded) = Store::open(&path).unwrap();
        assert!(loaded.records.is_empty());
        for round in 0..50 {
            let record = |word: &str| Some(format!("{word} {round}"));
            store.save(vec![(0, record("zero")), (1, record("one"))], round);
        }
        store.save(vec![(1, None)], 49);
        drop(store);
        let loaded = records(&path);
        assert_eq!(loaded.records, vec![(0, "zero 49".to_owned())]);
        assert_eq!(loaded.last_run, 49);
    }

    #[test]
    fn what_follows_a_record_finds_it_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let (store, _) = Store::open(&path).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        for round in 0..200_u64 {
            store.save(vec![(0, Some(round.to_string()))], round);
            let (tell, path) = (tell.clone(), path.clone());
            store.after_writing(Box::new(move || {
                let reader = Connection::open(path).unwrap();
                tell.send(read(&reader).unwrap().records).unwrap();
            }));
            assert_eq!(told.recv().unwrap(), vec![(0, round.to_string())]);
        }
        store.after_writing(Box::new(move || tell.send(Vec::new()).unwrap()));
        assert_eq!(told.recv().unwrap(), Vec::new(), "with nothing to write");
    }

    #[test]
    fn a_damaged_database_is_set_aside_and_a_fresh_one_works() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        std::fs::write(
            &path,
            "this is not a database, however long it may be".repeat(100),
        )
        .unwrap();
        let (store, loaded) = Store::open(&path).unwrap();
        let aside = loaded.set_aside.unwrap();
        assert!(aside.exists());
        store.save(vec![(7, Some("seven".to_owned()))], 1);
        drop(store);
        assert_eq!(records(&path).records, vec![(7, "seven".to_owned())]);
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(Store::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .unwrap();
        drop(connection);
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::Newer { found: 2, .. })
        ));
        assert!(path.exists());
    }
}
