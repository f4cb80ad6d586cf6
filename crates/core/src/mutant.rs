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
    /// A run whose agent said nothing is asked to drain.
    MuteDrains,
    /// That a drain is done is not heard.
    DrainedUnheard,
    /// A drain gets twice the time that was declared.
    DrainUnbounded,
    /// A retired process drains although nobody else serves.
    LastOneDrains,
    /// What a successor showed once counts although it was taken back.
    ProofRemembered,
    /// A run that fails its liveness probe is kept.
    LivenessOverlooked,
    /// Other probes are asked before the start is over.
    StartupOverlooked,
    /// One probe that is well turns traffic on, whatever the others say.
    AnyProbeTurnsTrafficOn,
    /// A roll replaces all of an app at once.
    ParallelOverlooked,
    /// A roll goes on after a failure.
    FailureOverlooked,
    /// What was replaced before a failure stays.
    NobodyGoesBack,
    /// A roll is answered although its client is gone.
    AbandonedRollAnswered,
    /// The release before is not booked.
    PreviousForgotten,
    /// The end of a run that was asked to end is not recorded.
    ExitUnrecorded,
    /// A run that died is asked how it is.
    DeadAreAsked,
    /// A roll starts what a person stopped meanwhile.
    StoppedAreRolled,
    /// A roll begins processes although the daemon is ending.
    EndGoesBack,
    /// A part of a roll counts as restarted without having said so.
    SilenceIsReady,
    /// A process named twice is replaced twice.
    TargetsDoubled,
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
    Mutant::MuteDrains,
    Mutant::DrainedUnheard,
    Mutant::DrainUnbounded,
    Mutant::LastOneDrains,
    Mutant::ProofRemembered,
    Mutant::LivenessOverlooked,
    Mutant::StartupOverlooked,
    Mutant::AnyProbeTurnsTrafficOn,
    Mutant::ParallelOverlooked,
    Mutant::FailureOverlooked,
    Mutant::NobodyGoesBack,
    Mutant::AbandonedRollAnswered,
    Mutant::PreviousForgotten,
    Mutant::ExitUnrecorded,
    Mutant::DeadAreAsked,
    Mutant::StoppedAreRolled,
    Mutant::EndGoesBack,
    Mutant::SilenceIsReady,
    Mutant::TargetsDoubled,
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
