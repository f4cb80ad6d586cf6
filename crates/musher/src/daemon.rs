//! The daemon: everything it waits for, one module per source.

#![allow(
    dead_code,
    reason = "the loop that uses these servers is not wired yet"
)]

pub(crate) mod bus;
pub(crate) mod rpc;
