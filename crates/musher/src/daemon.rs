//! The daemon.
pub mod calendar;
pub mod children;
pub mod journal;
pub mod readable;
pub mod sample;
pub mod store;
pub mod tree;
