//! How a process ended, and which process it is.
//!
//! Waits are always for one named pid ([`try_wait`]), so that no library's
//! child is stolen; only a keeper, which owns every child it has, reaps
//! whoever died ([`reap_any`]). Nothing here blocks.

use std::io;
use std::os::fd::OwnedFd;

use musher_core::exit::{ExitStatus, Signal};
use rustix::process::{
    Pid, PidfdFlags, Signal as RawSignal, WaitId, WaitIdOptions, WaitOptions, WaitStatus,
};

use crate::proc_stat;

/// Returns a descriptor of a process that becomes readable when it ends.
///
/// # Errors
/// Of pidfd_open(2): `ESRCH` if there is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        pid_of(pid)?,
        PidfdFlags::empty(),
    )?)
}

/// Reaps one child if it has ended; `None` while it runs.
///
/// # Errors
/// `ECHILD` if `pid` is not an unreaped child of the calling process.
pub fn try_wait(pid: u32) -> io::Result<Option<ExitStatus>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::Pid(pid_of(pid)?), options)?;
    Ok(status.map(|status| {
        let signal = status
            .terminating_signal()
            .map(|number| ExitStatus::Signal(Signal(number)));
        let code = status.exit_status().map(ExitStatus::Code);
        signal.or(code).unwrap_or(ExitStatus::Unknown)
    }))
}

/// Reaps any child that has ended; `None` if none has, or there is none.
///
/// For a process that owns all its children, such as a child subreaper.
pub fn reap_any() -> Option<(u32, ExitStatus)> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                return Some((pid.as_raw_pid().unsigned_abs(), exit_status(status)));
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Returns when a process started, in clock ticks after boot (field 22 of
/// proc_pid_stat(5)), or `None` if it is gone.
pub fn start_time(pid: u32) -> Option<u64> {
    proc_stat::read(pid).ok().map(|stat| stat.start_time)
}

/// Returns who is told of a process's end and reaps it, or `None` if it is gone.
pub fn parent(pid: u32) -> Option<u32> {
    proc_stat::read(pid).ok().map(|stat| stat.ppid)
}

/// Returns the kernel's random id of this boot, or an empty text where /proc
/// is not mounted. With pid and start time it names a process for ever.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Kills and reaps a child nobody will be told about.
pub(crate) fn abandon(pid: u32) {
    if let Ok(pid) = pid_of(pid) {
        // It is unreaped and ours; if it is gone already, so much the better.
        rustix::process::kill_process(pid, RawSignal::KILL).ok();
        rustix::process::waitpid(Some(pid), WaitOptions::empty()).ok();
    }
}

pub(crate) fn pid_of(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => ExitStatus::Signal(Signal(signal)),
        (None, Some(code)) => ExitStatus::Code(code),
        (None, None) => ExitStatus::Unknown,
    }
}
