//! Memory and cpu of processes and of the host.
//!
//! A sample of a process is one pread(2) of its open stat file. Rates are the
//! caller's: this module reports counters, never percentages.

use std::io;
use std::path::Path;

use musher_core::time::Millis;
use rustix::system::sysinfo;

use crate::proc_stat::{self, StatFd};

/// Fixed-point shift of the loads in sysinfo(2).
const LOAD_SHIFT: f64 = 65_536.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Cpu time in user and kernel mode since its start.
    pub cpu: Millis,
    /// Clock ticks after boot; with the pid, the identity of the process.
    pub start_time: u64,
}

/// Samples one process again and again with one system call each.
#[derive(Debug)]
pub struct Sampler {
    file: StatFd,
}

/// The machine, or the container as far as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Memory in bytes.
    pub memory_total: u64,
    /// Bytes that could be given out without swapping (MemAvailable of
    /// proc_meminfo(5)).
    pub memory_available: u64,
    /// Since boot.
    pub uptime: Millis,
}

impl Sampler {
    /// Opens the stat file of a process. It stays that process's file for
    /// ever, whoever gets the pid later.
    ///
    /// # Errors
    /// `ENOENT` if there is no such process.
    pub fn open(pid: u32) -> io::Result<Sampler> {
        Ok(Sampler {
            file: proc_stat::open_file(pid)?,
        })
    }

    /// Takes a sample.
    ///
    /// # Errors
    /// `ESRCH` after the process is gone.
    pub fn sample(&self) -> io::Result<Usage> {
        Ok(usage_of(proc_stat::read_open(self.file.as_fd_ref())?))
    }
}

/// Takes one sample of a process.
///
/// # Errors
/// `ENOENT` or `ESRCH` if there is no such process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    Ok(usage_of(proc_stat::read(pid)?))
}

fn usage_of(stat: proc_stat::ProcStat) -> Usage {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let page_size = rustix::param::page_size() as u64;
    Usage {
        rss_bytes: stat.rss_pages.saturating_mul(page_size),
        cpu: Millis((stat.utime + stat.stime).saturating_mul(1000) / ticks_per_second),
        start_time: stat.start_time,
    }
}

/// Returns how many cpus the calling process may use: its affinity, bounded by
/// the cgroup's quota rounded up, at least 1.
pub fn cpu_count() -> u32 {
    // More cpus than the set holds (1024): ask the standard library instead.
    let affinity = rustix::thread::sched_getaffinity(None).map_or_else(
        |_| std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
        |set| set.count(),
    );
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match cpu_quota(Path::new("/sys/fs/cgroup"), &membership) {
        Some(quota) => affinity.min(quota).max(1),
        None => affinity.max(1),
    }
}

/// Returns the tightest cpu quota that applies to a process of these
/// memberships (cgroups(7)), in whole cpus rounded up; `None` if there is none.
///
/// In a container the path of `/proc/self/cgroup` may be the host's and exist
/// nowhere; its last existing ancestor, the mount itself at least, is used.
fn cpu_quota(mount: &Path, membership: &str) -> Option<u32> {
    let quotas = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers) = (fields.next()?, fields.next()?);
        let path = fields.next()?.trim_start_matches('/');
        if hierarchy == "0" && controllers.is_empty() {
            return tightest(mount, path, quota_v2);
        }
        if controllers.split(',').any(|controller| controller == "cpu") {
            let by_name = tightest(&mount.join(controllers), path, quota_v1);
            return by_name.or_else(|| tightest(&mount.join("cpu"), path, quota_v1));
        }
        None
    });
    quotas.min()
}

fn tightest(mount: &Path, path: &str, quota: fn(&Path) -> Option<u32>) -> Option<u32> {
    let group = mount.join(path);
    group
        .ancestors()
        .take_while(|group| group.starts_with(mount))
        .filter_map(quota)
        .min()
}

/// cpu.max holds "<quota or max> <period>", both in µs.
fn quota_v2(group: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota.parse().ok()?, period.parse().ok()?)
}

/// cpu.cfs_quota_us is -1 without a limit.
fn quota_v1(group: &Path) -> Option<u32> {
    let read = |file| {
        std::fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    whole_cpus(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
}

fn whole_cpus(quota: i64, period: i64) -> Option<u32> {
    let (quota, period) = (u64::try_from(quota).ok()?, u64::try_from(period).ok()?);
    if period == 0 {
        return None;
    }
    u32::try_from(quota.div_ceil(period))
        .ok()
        .map(|cpus| cpus.max(1))
}

/// Samples the host: sysinfo(2) and `/proc/meminfo`.
pub fn host() -> Host {
    let info = sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    // `c_ulong` is 32 bits wide on some targets.
    #[allow(clippy::useless_conversion)]
    let bytes = |n_units| u64::from(n_units).saturating_mul(unit);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Host {
        load: info.loads.map(|load| load as f64 / LOAD_SHIFT),
        memory_total: bytes(info.totalram),
        memory_available: available(&meminfo).unwrap_or_else(|| bytes(info.freeram)),
        uptime: Millis(u64::try_from(info.uptime).unwrap_or(0) * 1000),
    }
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(mount: &Path, path: &str, files: &[(&str, &str)]) {
        let dir = mount.join(path);
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_quota_of_the_ancestors_counts_rounded_up() {
        let mount = tempfile::tempdir().unwrap();
        group(mount.path(), "a", &[("cpu.max", "250000 100000\n")]);
        group(mount.path(), "a/b", &[("cpu.max", "max 100000\n")]);
        assert_eq!(cpu_quota(mount.path(), "0::/a/b\n"), Some(3));
        assert_eq!(cpu_quota(mount.path(), "0::/\n"), None);
        group(mount.path(), "a/c", &[("cpu.max", "1000 100000\n")]);
        assert_eq!(cpu_quota(mount.path(), "0::/a/c\n"), Some(1));
    }

    #[test]
    fn a_path_of_the_host_falls_back_to_the_mount() {
        let mount = tempfile::tempdir().unwrap();
        group(mount.path(), "", &[("cpu.max", "200000 100000")]);
        assert_eq!(cpu_quota(mount.path(), "0::/docker/none/here"), Some(2));
    }

    #[test]
    fn version_1_is_read_by_controller_and_minus_one_is_no_limit() {
        let mount = tempfile::tempdir().unwrap();
        let files = [
            ("cpu.cfs_quota_us", "150000\n"),
            ("cpu.cfs_period_us", "100000\n"),
        ];
        group(mount.path(), "cpu,cpuacct/app", &files);
        let membership = "5:devices:/\n4:cpu,cpuacct:/app\n0::/\n";
        assert_eq!(cpu_quota(mount.path(), membership), Some(2));
        let files = [
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
        ];
        group(mount.path(), "cpu/free", &files);
        assert_eq!(cpu_quota(mount.path(), "1:cpu:/free\n"), None);
    }

    #[test]
    fn the_host_has_memory_and_a_cpu() {
        let host = host();
        assert!(host.memory_available <= host.memory_total && host.memory_available > 0);
        assert!(cpu_count() >= 1);
        assert_eq!(
            available("MemTotal: 9 kB\nMemAvailable:   12 kB\n"),
            Some(12 * 1024)
        );
    }
}
