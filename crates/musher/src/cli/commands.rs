//! One file per verb or family of verbs.

pub(super) mod actions;
pub(super) mod completion;
pub(super) mod config;
pub(super) mod describe;
pub(super) mod env;
pub(super) mod flush;
pub(super) mod gc;
pub(super) mod history;
pub(super) mod id;
pub(super) mod kill;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod reload;
pub(super) mod report;
pub(super) mod reset;
pub(super) mod rollback;
pub(super) mod save;
pub(super) mod scale;
pub(super) mod signals;
pub(super) mod start;
pub(super) mod startup;
pub(super) mod update;
