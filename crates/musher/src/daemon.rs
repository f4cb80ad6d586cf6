//! The daemon: one loop that decides, and the threads that carry bytes.

pub(crate) mod logs;
