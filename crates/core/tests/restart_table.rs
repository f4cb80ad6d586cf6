//! The restart policy as a table: how a run ended, and what follows.
#![allow(clippy::unwrap_used)]

use musher_core::app::RestartPolicy;
use musher_core::exit::{ExitStatus, Signal};
use musher_core::supervisor::SpawnFailure;
use musher_core::supervisor::restart::{BACKOFF_RESET, Ending, History, Verdict, verdict};
use musher_core::time::{Millis, Mono, Wall};

const EXIT_0: Ending = Ending::Exited(ExitStatus::Code(0));
const EXIT_1: Ending = Ending::Exited(ExitStatus::Code(1));
const SEGV: Ending = Ending::Exited(ExitStatus::Signal(Signal(11)));
const LOST: Ending = Ending::Exited(ExitStatus::Unknown);
const NO_FILE: Ending = Ending::SpawnFailed(SpawnFailure::Permanent);
const NO_MEMORY: Ending = Ending::SpawnFailed(SpawnFailure::Transient);

/// A run that lasted.
const LONG: u64 = 5000;
/// A run shorter than `min_uptime`.
const SHORT: u64 = 10;

const AT_ONCE: Verdict = Verdict::Restart { after: Millis(0) };
const STOP: Verdict = Verdict::Stop;
const GIVE_UP: Verdict = Verdict::GiveUp;

const fn after(span: u64) -> Verdict {
    Verdict::Restart {
        after: Millis(span),
    }
}

/// One row: policy, ending, uptime, unstable runs before; verdict and unstable runs after.
type Row = (fn() -> RestartPolicy, Ending, u64, u32, Verdict, u32);

fn plain() -> RestartPolicy {
    RestartPolicy::default()
}
fn no_autorestart() -> RestartPolicy {
    RestartPolicy {
        autorestart: false,
        ..plain()
    }
}
fn stop_codes_0_and_3() -> RestartPolicy {
    RestartPolicy {
        stop_exit_codes: vec![0, 3],
        ..plain()
    }
}
fn restart_delay_500() -> RestartPolicy {
    RestartPolicy {
        restart_delay: Some(Millis(500)),
        ..plain()
    }
}
fn backoff_100() -> RestartPolicy {
    RestartPolicy {
        exp_backoff: Some(Millis(100)),
        ..plain()
    }
}
fn backoff_wins_over_delay() -> RestartPolicy {
    RestartPolicy {
        exp_backoff: Some(Millis(100)),
        ..restart_delay_500()
    }
}
fn max_restarts_3() -> RestartPolicy {
    RestartPolicy {
        max_restarts: 3,
        ..plain()
    }
}
fn max_restarts_0() -> RestartPolicy {
    RestartPolicy {
        max_restarts: 0,
        ..plain()
    }
}
fn min_uptime_0() -> RestartPolicy {
    RestartPolicy {
        min_uptime: Millis(0),
        ..plain()
    }
}
fn min_uptime_10_s() -> RestartPolicy {
    RestartPolicy {
        min_uptime: Millis(10_000),
        ..plain()
    }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // policy                 ending     uptime  before  verdict     after
    (plain,                   EXIT_0,    LONG,   0,      AT_ONCE,    0),
    (plain,                   EXIT_1,    LONG,   0,      AT_ONCE,    0),
    (plain,                   SEGV,      LONG,   0,      AT_ONCE,    0),
    (plain,                   LOST,      LONG,   0,      AT_ONCE,    0),
    (plain,                   EXIT_0,    SHORT,  0,      AT_ONCE,    1),
    (plain,                   SEGV,      SHORT,  14,     AT_ONCE,    15),
    (plain,                   SEGV,      SHORT,  15,     GIVE_UP,    0),
    (plain,                   NO_FILE,   SHORT,  0,      GIVE_UP,    0),
    (plain,                   NO_FILE,   LONG,   7,      GIVE_UP,    0),
    (plain,                   NO_MEMORY, SHORT,  0,      after(1000), 1),
    (plain,                   NO_MEMORY, SHORT,  15,     GIVE_UP,    0),
    (plain,                   EXIT_1,    999,    0,      AT_ONCE,    1),
    (plain,                   EXIT_1,    1000,   0,      AT_ONCE,    0),

    (no_autorestart,          EXIT_0,    LONG,   0,      STOP,       0),
    (no_autorestart,          EXIT_1,    LONG,   0,      STOP,       0),
    (no_autorestart,          SEGV,      LONG,   0,      STOP,       0),
    (no_autorestart,          EXIT_1,    SHORT,  3,      STOP,       3),
    (no_autorestart,          NO_FILE,   SHORT,  0,      GIVE_UP,    0),
    (no_autorestart,          NO_MEMORY, SHORT,  0,      STOP,       0),

    (stop_codes_0_and_3,      EXIT_0,    LONG,   0,      STOP,       0),
    (stop_codes_0_and_3,      EXIT_0,    SHORT,  2,      STOP,       2),
    (stop_codes_0_and_3,      Ending::Exited(ExitStatus::Code(3)), LONG, 0, STOP, 0),
    (stop_codes_0_and_3,      EXIT_1,    LONG,   0,      AT_ONCE,    0),
    (stop_codes_0_and_3,      SEGV,      LONG,   0,      AT_ONCE,    0),
    (stop_codes_0_and_3,      LOST,      LONG,   0,      AT_ONCE,    0),
    (stop_codes_0_and_3,      NO_FILE,   SHORT,  0,      GIVE_UP,    0),
    (stop_codes_0_and_3,      NO_MEMORY, SHORT,  0,      after(1000), 1),

    (restart_delay_500,       EXIT_0,    LONG,   0,      after(500), 0),
    (restart_delay_500,       EXIT_1,    SHORT,  0,      after(500), 1),
    (restart_delay_500,       SEGV,      LONG,   0,      after(500), 0),
    (restart_delay_500,       SEGV,      SHORT,  15,     GIVE_UP,    0),
    (restart_delay_500,       NO_FILE,   SHORT,  0,      GIVE_UP,    0),
    (restart_delay_500,       NO_MEMORY, SHORT,  0,      after(1000), 1),

    (backoff_100,             EXIT_0,    LONG,   0,      after(100), 0),
    (backoff_100,             EXIT_1,    SHORT,  0,      after(100), 1),
    (backoff_100,             SEGV,      LONG,   0,      after(100), 0),
    (backoff_100,             NO_FILE,   SHORT,  0,      GIVE_UP,    0),
    (backoff_100,             NO_MEMORY, SHORT,  0,      after(1000), 1),
    (backoff_wins_over_delay, EXIT_1,    LONG,   0,      after(100), 0),

    (max_restarts_3,          EXIT_0,    SHORT,  1,      AT_ONCE,    2),
    (max_restarts_3,          EXIT_1,    SHORT,  2,      GIVE_UP,    0),
    (max_restarts_3,          SEGV,      LONG,   2,      AT_ONCE,    2),
    (max_restarts_3,          NO_FILE,   SHORT,  0,      GIVE_UP,    0),
    (max_restarts_3,          NO_MEMORY, SHORT,  2,      GIVE_UP,    0),
    // Outside of the window of 3 x 1000 ms a short run is not held against it.
    (max_restarts_3,          EXIT_1,    3000,   2,      AT_ONCE,    2),

    (max_restarts_0,          EXIT_0,    LONG,   0,      GIVE_UP,    0),
    (max_restarts_0,          EXIT_1,    SHORT,  0,      GIVE_UP,    0),
    (max_restarts_0,          SEGV,      LONG,   0,      GIVE_UP,    0),
    (max_restarts_0,          NO_FILE,   SHORT,  0,      GIVE_UP,    0),
    (max_restarts_0,          NO_MEMORY, SHORT,  0,      GIVE_UP,    0),

    (min_uptime_0,            EXIT_0,    0,      0,      AT_ONCE,    0),
    (min_uptime_0,            SEGV,      0,      15,     AT_ONCE,    15),
    (min_uptime_0,            NO_FILE,   0,      0,      GIVE_UP,    0),
    (min_uptime_0,            NO_MEMORY, 0,      0,      after(1000), 0),
    (min_uptime_10_s,         EXIT_1,    LONG,   0,      AT_ONCE,    1),
    (min_uptime_10_s,         SEGV,      9999,   0,      AT_ONCE,    1),
    (min_uptime_10_s,         SEGV,      10_000, 0,      AT_ONCE,    0),
    (min_uptime_10_s,         NO_FILE,   LONG,   0,      GIVE_UP,    0),
    (min_uptime_10_s,         NO_MEMORY, SHORT,  0,      after(1000), 1),
];

fn history(created: u64, unstable_restarts: u32) -> History {
    History {
        created: Some((Mono(created), Wall(0))),
        unstable_restarts,
        ..History::default()
    }
}

#[test]
fn every_attribute_meets_every_ending() {
    for (row, (policy, ending, uptime, before, expected, unstable)) in TABLE.iter().enumerate() {
        let start = 1_000_000;
        let mut history = history(start, *before);
        let now = Mono(start + uptime);
        let got = verdict(&policy(), &mut history, *ending, Mono(start), now);
        let context = format!("row {row}: {:?} {ending:?} after {uptime} ms", policy());
        assert_eq!(got, *expected, "{context}");
        assert_eq!(history.unstable_restarts, *unstable, "{context}");
        let is_created = history.created.is_some();
        assert_eq!(is_created, got != Verdict::GiveUp, "{context}");
        if let Ending::Exited(status) = ending {
            assert_eq!(history.last_exit, Some(*status), "{context}");
        }
    }
}

#[test]
fn an_old_slot_is_not_given_up_for_a_short_run() {
    let mut history = history(0, 15);
    let got = verdict(&plain(), &mut history, EXIT_1, Mono(16_000), Mono(16_010));
    assert_eq!((got, history.unstable_restarts), (AT_ONCE, 15));
    let mut history = self::history(0, 15);
    let got = verdict(&plain(), &mut history, EXIT_1, Mono(15_980), Mono(15_999));
    assert_eq!((got, history.unstable_restarts), (GIVE_UP, 0));
}

#[test]
fn a_slot_without_a_creation_is_not_young() {
    let mut history = History::default();
    let got = verdict(&plain(), &mut history, EXIT_1, Mono(0), Mono(10));
    assert_eq!((got, history.unstable_restarts), (AT_ONCE, 0));
}

#[test]
fn sixteen_fast_exits_give_up_with_fifteen_restarts() {
    let mut history = history(0, 0);
    let mut n_restarts = 0;
    let mut now = 0;
    while verdict(&plain(), &mut history, EXIT_1, Mono(now), Mono(now + 50)) == AT_ONCE {
        n_restarts += 1;
        now += 50;
    }
    assert_eq!(n_restarts, 15);
}

#[test]
fn the_back_off_is_pm2s_series_and_begins_anew_after_thirty_seconds() {
    let series = [
        100, 150, 225, 337, 505, 757, 1135, 1702, 2553, 3829, 5743, 8614, 12_921, 15_000, 15_000,
    ];
    let mut history = history(0, 0);
    // An old slot, so that the limit of unstable runs is out of the way.
    let mut now = 1_000_000;
    for expected in series {
        let got = verdict(
            &backoff_100(),
            &mut history,
            EXIT_1,
            Mono(now),
            Mono(now + 5),
        );
        assert_eq!(got, after(expected));
        assert_eq!(history.prev_delay, Some(Millis(expected)));
        now += expected + 5;
    }
    let stable = BACKOFF_RESET.get();
    let got = verdict(
        &backoff_100(),
        &mut history,
        EXIT_1,
        Mono(now),
        Mono(now + stable),
    );
    assert_eq!(got, after(15_000), "exactly 30 s is not yet stable");
    let ended = Mono(now + stable + 1);
    let got = verdict(&backoff_100(), &mut history, EXIT_1, Mono(now), ended);
    assert_eq!(got, after(100));
}
