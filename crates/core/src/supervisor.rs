//! The decider: everything musher does to processes is decided here.

pub mod action;
pub mod event;
pub mod request;

pub use action::{Action, AppKey, Channel, Output, ProcessEvent, SpawnPlan};
pub use event::{AppMessage, Event, Sample};
pub use request::{Changes, Reply, Request, RequestError};
