//! Seam until the env module lands.
use super::AppSpec;
/// Facts of a run.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct RunFacts {
    pub pm_id: u32,
    pub instance: u32,
    pub increment: Option<i64>,
    pub restart_time: u32,
    pub unstable_restarts: u32,
    pub pm_uptime_ms: i64,
    pub created_at_ms: i64,
    pub exit_code: Option<i32>,
    pub version: Option<String>,
    pub node_version: Option<String>,
    pub prev_restart_delay_ms: Option<u64>,
    pub out_path: Option<String>,
    pub err_path: Option<String>,
    pub combined_path: Option<String>,
    pub pid_path: String,
}
/// Env.
pub fn child_env(_spec: &AppSpec, _f: &RunFacts) -> Vec<(String, String)> {
    Vec::new()
}
