//! What `package.json` says about an app.

use std::path::Path;

/// Returns `version` of the nearest package.json above a script.
pub(crate) fn package_version(script: &str) -> Option<String> {
    /// A package.json larger than this is not read.
    const MAX_BYTES: u64 = 1 << 20;
    Path::new(script).ancestors().skip(1).find_map(|dir| {
        let path = dir.join("package.json");
        let file = std::fs::metadata(&path).ok()?;
        // Reading a FIFO of that name would stop the loop for ever.
        if !file.is_file() || file.len() > MAX_BYTES {
            return None;
        }
        let text = std::fs::read_to_string(&path).ok()?;
        let package: serde_json::Value = serde_json::from_str(&text).ok()?;
        package["version"].as_str().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_nearest_package_which_must_be_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let fifo = inner.join("package.json");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::fs::write(dir.path().join("package.json"), r#"{"version":"1.2.3"}"#).unwrap();
        let script = inner.join("app.js");
        let version = package_version(script.to_str().unwrap());
        assert_eq!(version.as_deref(), Some("1.2.3"));
    }
}
