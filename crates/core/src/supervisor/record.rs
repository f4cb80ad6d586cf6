//! What is worth keeping after it is over: how runs ended and how rolls went.
//!
//! Records are for people and are never read back by the supervisor.

use super::action::AppKey;
use super::roll::Receipt;
use crate::exit::ExitStatus;
use crate::id::{Incarnation, PmId};
use crate::time::Millis;

/// One thing for the history of an app.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A run ended.
    Exit(Box<ExitRecord>),
    /// A roll is over.
    Reload(Box<Receipt>),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitRecord {
    /// Whose.
    pub pm_id: PmId,
    /// Name and namespace of the app.
    pub app: AppKey,
    /// Which run.
    pub run: Incarnation,
    /// Its pid, if it ever had one.
    pub pid: Option<u32>,
    /// How.
    pub status: ExitStatus,
    /// How long it lived.
    pub lived: Millis,
    /// Whether musher ended it.
    pub was_asked: bool,
    /// What followed, for people.
    pub note: Option<String>,
}
