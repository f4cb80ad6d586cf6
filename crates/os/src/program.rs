//! The search of execvp(3): from a program's name to its path.
//!
//! The search is done before the fork with the PATH of the app, which need not
//! be the daemon's, and relative to the app's working directory. It never
//! executes anything.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

/// Where execvp(3) looks without a PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Returns the path that execvp would execute for `program`.
///
/// A name with a slash is taken relative to `cwd` and not checked: exec itself
/// reports what is wrong with it. A bare name is looked up in `path_env`, whose
/// empty entries mean `cwd`.
///
/// # Errors
/// `ENOENT` if no entry has it, `EACCES` if only unusable files were found.
pub fn resolve_program(
    program: &str,
    path_env: Option<&str>,
    cwd: &Path,
) -> Result<PathBuf, Errno> {
    if program.is_empty() {
        return Err(Errno::NOENT);
    }
    if program.contains('/') {
        return Ok(cwd.join(program));
    }
    let mut verdict = Errno::NOENT;
    for entry in path_env.unwrap_or(DEFAULT_PATH).split(':') {
        let candidate = cwd.join(entry).join(program);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => verdict = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(verdict)
}

fn executable(path: &Path) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(stat(path)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}
