//! The daemon: the loop that owns all supervised state, and its threads.

#[cfg_attr(not(test), allow(dead_code, reason = "called by the loop"))]
pub(crate) mod balance;
