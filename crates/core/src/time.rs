//! Instants and spans as plain numbers, without a `now()`.
//!
//! Policy is decided on [`Mono`], which no clock change can move; what people
//! and PM2's wire see is [`Wall`]. Both are passed in together as [`Now`].

use std::ops::{Add, Sub};

/// A span in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// Milliseconds of CLOCK_BOOTTIME (clock_gettime(2)): monotonic, counts through
/// suspend, and is the same for every process of one boot, so it survives a
/// new daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Milliseconds since the Unix epoch; may jump either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// Both clocks, read at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The clock that decides.
    pub mono: Mono,
    /// The clock that is shown.
    pub wall: Wall,
}

impl Millis {
    /// Returns the span as whole milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Mono {
    /// Returns the span since `earlier`, or zero if `earlier` is later.
    pub const fn since(self, earlier: Mono) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for Mono {
    type Output = Mono;
    fn add(self, span: Millis) -> Mono {
        Mono(self.0.saturating_add(span.0))
    }
}

impl Sub<Millis> for Mono {
    type Output = Mono;
    fn sub(self, span: Millis) -> Mono {
        Mono(self.0.saturating_sub(span.0))
    }
}

impl Wall {
    /// Returns the span since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Wall) -> Millis {
        Millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}
