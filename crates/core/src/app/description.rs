//! Seam until the description module lands.
use super::AppSpec;
use crate::supervisor::Changes;
/// Defaults.
#[derive(Clone, Debug, Default)]
pub struct Defaults {}
/// Applies.
pub fn apply(spec: &AppSpec, _c: &Changes, _d: &Defaults) -> Result<AppSpec, Vec<String>> {
    Ok(spec.clone())
}
