//! Bugs planted on purpose: the tests of the tests.
//!
//! Exists only with the feature `mutants`, which the tests of this crate
//! enable. The simulator plants one after the other and has to catch each. A
//! normal build contains neither this module nor a trace of its hooks.

use std::cell::Cell;

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A short run is unstable however old its slot is.
    WindowIgnored,
    /// The exponential back-off grows for ever.
    BackoffUncapped,
    /// What any run of a slot says counts for the one that serves.
    StaleReadyAccepted,
    /// A stop is answered while the run in second place lives.
    LeavingRunOverlooked,
    /// A stop does not reach the run in second place.
    SecondRunSpared,
    /// A successor is not promoted when its predecessor dies.
    PromoteForgotten,
    /// A superseded request is dropped without a word.
    SupersedeUntold,
    /// A successor takes over when its time to prove itself is up.
    UnprovenTakesOver,
    /// Automatic restarts go on while the daemon ends.
    EndingIgnored,
    /// `stop_exit_codes` is not looked at.
    StopCodesIgnored,
    /// Nobody tells those who wait for a run that none will come.
    GiveUpUntold,
    /// Slot numbers are those of the next free place.
    NumbersReused,
    /// SIGKILL is sent at every deadline.
    LadderStays,
    /// A delayed restart is due at once.
    DelayIgnored,
    /// A successor's start shows as the start of what serves.
    SuccessorShownEarly,
    /// A promoted successor is not announced.
    PromotionUnannounced,
    /// A clock set back silences cron until it is where it was.
    SetBackIgnored,
    /// What waits for a restart gets it although the daemon is ending.
    WaitingOutlivesTheEnd,
}

/// Every mutant.
pub const ALL: &[Mutant] = &[
    Mutant::WindowIgnored,
    Mutant::BackoffUncapped,
    Mutant::StaleReadyAccepted,
    Mutant::LeavingRunOverlooked,
    Mutant::SecondRunSpared,
    Mutant::PromoteForgotten,
    Mutant::SupersedeUntold,
    Mutant::UnprovenTakesOver,
    Mutant::EndingIgnored,
    Mutant::StopCodesIgnored,
    Mutant::GiveUpUntold,
    Mutant::NumbersReused,
    Mutant::LadderStays,
    Mutant::DelayIgnored,
    Mutant::SuccessorShownEarly,
    Mutant::PromotionUnannounced,
    Mutant::SetBackIgnored,
    Mutant::WaitingOutlivesTheEnd,
];

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Plants one bug in this thread, or removes it.
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Returns whether this bug is planted in this thread.
pub fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}
