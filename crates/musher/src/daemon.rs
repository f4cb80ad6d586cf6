//! The daemon: one loop that decides, and the threads that carry bytes.

pub(crate) mod calendar;
pub(crate) mod children;
pub(crate) mod journal;
pub(crate) mod logs;
pub(crate) mod readable;
pub(crate) mod sample;
pub(crate) mod store;
pub(crate) mod tree;
