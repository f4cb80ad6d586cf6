//! Who is killed first when memory runs out (proc_pid_oom_score_adj(5)).
//!
//! A manager that dies with its apps is of no use, so it makes itself a less
//! likely victim than they are. Where lowering its own score is not permitted
//! (it needs CAP_SYS_RESOURCE), the apps' is raised by a little instead. It
//! never exempts anybody.

use std::fs;
use std::sync::atomic::{AtomicI32, Ordering};

/// The file of the calling process.
pub(crate) const OWN_FILE: &std::ffi::CStr = c"/proc/self/oom_score_adj";

/// What keeper and daemon get where it is permitted: half of the machine's
/// memory less than they use. Not -1000, which would exempt a leak.
const OWN_SCORE: i32 = -500;

/// How much apps are raised otherwise: one percent of the memory, many times
/// what the daemon uses.
const RAISED_BY: i32 = 10;

/// Highest score the kernel takes.
const MAX_SCORE: i32 = 1000;

/// A child has what its parent has.
const INHERIT: i32 = i32::MIN;

/// The score of apps.
static APPS: AtomicI32 = AtomicI32::new(INHERIT);

/// The score of musher's own programs: the one this process began with, so
/// that each of them may do as this one did.
static OWN_PROGRAMS: AtomicI32 = AtomicI32::new(INHERIT);

/// Makes the calling process a less likely victim than the apps it starts from
/// here on. Called once, early; a second call changes nothing.
pub fn prefer_apps() {
    if APPS.load(Ordering::Relaxed) != INHERIT {
        return;
    }
    let Some(inherited) = read() else { return };
    let is_lowered = inherited > OWN_SCORE && fs::write(path(), OWN_SCORE.to_string()).is_ok();
    if is_lowered {
        OWN_PROGRAMS.store(inherited, Ordering::Relaxed);
        APPS.store(inherited, Ordering::Relaxed);
    } else {
        let raised = (inherited + RAISED_BY).min(MAX_SCORE);
        APPS.store(raised, Ordering::Relaxed);
    }
}

/// Returns what an app writes to [`OWN_FILE`], if anything.
pub(crate) fn score_of_apps() -> Option<String> {
    as_text(&APPS)
}

/// Returns what a program of musher's own writes there, if anything.
pub(crate) fn score_of_own_programs() -> Option<String> {
    as_text(&OWN_PROGRAMS)
}

fn as_text(score: &AtomicI32) -> Option<String> {
    match score.load(Ordering::Relaxed) {
        INHERIT => None,
        score => Some(score.to_string()),
    }
}

/// Returns how many processes the kernel has killed for want of memory since
/// boot, whoever's they were; `None` before Linux 4.13.
pub fn kills_since_boot() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn read() -> Option<i32> {
    fs::read_to_string(path()).ok()?.trim().parse().ok()
}

fn path() -> &'static str {
    OWN_FILE.to_str().unwrap_or_default()
}
