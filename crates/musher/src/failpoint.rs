//! Places where a test lets a process die: as by `kill -9`, at that very step.
//!
//! Only in builds with debug assertions, and only when `MUSHER_FAILPOINT` names
//! a file. The file holds `<place>:<count>`; the process that comes there for the
//! count-th time removes the file and kills itself, so that whoever follows it
//! lives. A test can arm one place after the other in one home.

/// Dies here if this place is armed.
#[cfg(debug_assertions)]
pub(crate) fn hit(place: &str) {
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock, PoisonError};

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let file = FILE.get_or_init(|| std::env::var_os("MUSHER_FAILPOINT").map(PathBuf::from));
    let Some(file) = file else { return };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(text) = std::fs::read_to_string(file) else {
        return;
    };
    let Some((name, count)) = text.trim().split_once(':') else {
        return;
    };
    let Some(count) = count.parse::<u32>().ok().filter(|_| name == place) else {
        return;
    };
    if count > 1 {
        // The test that armed it waits for the end: a file that cannot be
        // written is its failure.
        let _ = std::fs::write(file, format!("{name}:{}", count - 1));
        return;
    }
    if std::fs::remove_file(file).is_ok() {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}

/// Does nothing: a release has no such places.
#[cfg(not(debug_assertions))]
pub(crate) const fn hit(_place: &str) {}
