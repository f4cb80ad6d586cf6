//! Reading one element of `getMonitorData`, as PM2 shapes it.

use musher_core::id::PmId;
use serde_json::{Map, Value};

/// A process as the daemon sent it.
#[derive(Clone, Copy)]
pub(super) struct Process<'a>(pub(super) &'a Value);

impl<'a> Process<'a> {
    /// Returns an attribute or runtime field of `pm2_env`.
    pub(super) fn field(self, key: &str) -> Option<&'a Value> {
        self.0.get("pm2_env")?.get(key)
    }

    /// Returns a field that is a text.
    pub(super) fn text(self, key: &str) -> Option<&'a str> {
        self.field(key)?.as_str()
    }

    /// Returns a field that is a number, else 0.
    pub(super) fn number(self, key: &str) -> i64 {
        self.field(key).and_then(Value::as_i64).unwrap_or(0)
    }

    /// Returns a field that is an object.
    pub(super) fn object(self, key: &str) -> Option<&'a Map<String, Value>> {
        self.field(key)?.as_object()
    }

    /// Returns true unless the field is missing, null, false, 0 or empty.
    pub(super) fn is_set(self, key: &str) -> bool {
        match self.field(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(on)) => *on,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(_) | Value::Object(_)) => true,
        }
    }

    /// Returns the slot.
    pub(super) fn id(self) -> PmId {
        let id = self.0.get("pm_id").or_else(|| self.field("pm_id"));
        let id = id.and_then(Value::as_u64).unwrap_or(0);
        PmId(u32::try_from(id).unwrap_or(u32::MAX))
    }

    /// Returns the app's name.
    pub(super) fn name(self) -> &'a str {
        let name = self.0.get("name").and_then(Value::as_str);
        name.or_else(|| self.text("name")).unwrap_or("")
    }

    /// Returns the namespace.
    pub(super) fn namespace(self) -> &'a str {
        self.text("namespace").unwrap_or("default")
    }

    /// Returns PM2's status word.
    pub(super) fn status(self) -> &'a str {
        self.text("status").unwrap_or("")
    }

    /// Returns the pid; `None` when the entry never ran.
    pub(super) fn pid(self) -> Option<u64> {
        self.0.get("pid").and_then(Value::as_u64)
    }

    /// Returns the resident memory in bytes.
    pub(super) fn memory(self) -> Option<f64> {
        self.0.get("monit")?.get("memory")?.as_f64()
    }

    /// Returns the cpu usage in percent of a core.
    pub(super) fn cpu(self) -> Option<f64> {
        self.0.get("monit")?.get("cpu")?.as_f64()
    }

    /// Returns `fork` or `cluster`.
    pub(super) fn mode(self) -> &'static str {
        match self.text("exec_mode") {
            Some("cluster_mode") => "cluster",
            Some(_) | None => "fork",
        }
    }

    /// Returns true for a PM2 module.
    pub(super) fn is_module(self) -> bool {
        self.is_set("pmx_module")
    }

    /// Returns why the status is what it is.
    pub(super) fn reason(self) -> Option<&'a str> {
        self.0
            .get("reason")
            .and_then(Value::as_str)
            .filter(|reason| !reason.is_empty())
    }
}
