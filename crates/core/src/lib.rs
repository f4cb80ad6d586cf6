//! The decider of musher.
//!
//! A closed set of events goes in, a closed set of actions comes out: see
//! [`supervisor::Supervisor::step`], which is the main path of the whole
//! program. This crate performs no I/O, reads no clock, environment or random
//! source, and never waits; whoever calls it passes the time as an argument
//! and carries out the actions. That is what lets a simulator run years of
//! supervision in seconds.
//!
//! Direction of imports: `id, time, exit <- app <- view <- supervisor <- wire`,
//! and `cluster` beside `supervisor`.

/// Whether a bug is planted: `false`, except in the tests of this crate.
#[cfg(not(feature = "mutants"))]
macro_rules! planted {
    ($mutant:ident) => {
        false
    };
}
#[cfg(feature = "mutants")]
macro_rules! planted {
    ($mutant:ident) => {
        $crate::mutant::is_planted($crate::mutant::Mutant::$mutant)
    };
}

pub mod app;
pub mod cluster;
pub mod exit;
pub mod id;
pub mod log;
#[cfg(feature = "mutants")]
pub mod mutant;
pub mod supervisor;
pub mod target;
pub mod time;
pub mod view;
pub mod wire;
