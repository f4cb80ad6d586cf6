//! The identities of musher: typed numbers that cannot be mistaken for one another.
//!
//! A pid is never an identity: the kernel reuses it. One life of a process is
//! an [`Incarnation`]; the slot it fills is a [`PmId`].

use std::fmt;

/// Numbers a process slot; PM2's `pm_id`. Counts from 0 and is reset to 0 only
/// when the last slot is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PmId(pub u32);

/// Numbers one life of a process: one pid. Never reused within a home, also
/// across daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Numbers a client's request, so that it can be answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for PmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
