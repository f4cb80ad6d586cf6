//! What is true after every step, one function per rule.
//!
//! Rules about one order alone are checked where it is observed, in `model`;
//! what is promised only once the world is quiet stands in `world`.

mod identity;
mod policy;
mod replace;
mod transaction;

use crate::model::Step;

/// A rule: its name, and what tells whether a step keeps it.
pub(crate) type Rule = (&'static str, fn(&Step<'_>) -> Result<(), String>);

/// Every rule.
pub(crate) const INVARIANTS: &[Rule] = &[
    (
        "every_live_process_is_known",
        identity::every_live_process_is_known,
    ),
    (
        "a_slot_has_at_most_two_runs",
        identity::a_slot_has_at_most_two_runs,
    ),
    ("phases_only_go_forward", identity::phases_only_go_forward),
    (
        "ended_runs_are_forgotten_once",
        identity::ended_runs_are_forgotten_once,
    ),
    (
        "words_are_their_speakers",
        identity::words_are_their_speakers,
    ),
    (
        "a_stale_event_changes_nothing",
        identity::a_stale_event_changes_nothing,
    ),
    ("ids_ascend", identity::ids_ascend),
    (
        "instances_are_the_smallest_free",
        identity::instances_are_the_smallest_free,
    ),
    ("changes_are_persisted", identity::changes_are_persisted),
    ("slots_are_those_in_use", identity::slots_are_those_in_use),
    (
        "stopped_means_nothing_lives",
        identity::stopped_means_nothing_lives,
    ),
    (
        "an_answered_stop_means_nothing_lives",
        identity::an_answered_stop_means_nothing_lives,
    ),
    (
        "a_request_is_answered_at_most_once",
        policy::a_request_is_answered_at_most_once,
    ),
    (
        "open_requests_are_those_unanswered",
        policy::open_requests_are_those_unanswered,
    ),
    (
        "no_deadline_is_left_behind",
        policy::no_deadline_is_left_behind,
    ),
    (
        "a_repeated_deadline_does_nothing",
        policy::a_repeated_deadline_does_nothing,
    ),
    ("waiting_has_a_deadline", policy::waiting_has_a_deadline),
    ("a_delay_is_waited_for", policy::a_delay_is_waited_for),
    (
        "a_delay_is_the_declared_one",
        policy::a_delay_is_the_declared_one,
    ),
    ("restart_time_only_grows", policy::restart_time_only_grows),
    (
        "unstable_restarts_stay_below_the_limit",
        policy::unstable_restarts_stay_below_the_limit,
    ),
    (
        "unstable_runs_are_counted",
        policy::unstable_runs_are_counted,
    ),
    (
        "no_restart_where_none_is_wanted",
        policy::no_restart_where_none_is_wanted,
    ),
    ("given_up_stays_given_up", policy::given_up_stays_given_up),
    (
        "a_clock_set_back_keeps_cron_going",
        policy::a_clock_set_back_keeps_cron_going,
    ),
    ("an_occurrence_fires_once", policy::an_occurrence_fires_once),
    (
        "the_limit_spares_a_run_in_second_place",
        policy::the_limit_spares_a_run_in_second_place,
    ),
    (
        "a_kill_reaches_as_far_as_declared",
        policy::a_kill_reaches_as_far_as_declared,
    ),
    ("exit_comes_last", policy::exit_comes_last),
    ("online_means_ready", replace::online_means_ready),
    (
        "online_is_announced_once",
        replace::online_is_announced_once,
    ),
    ("a_spawn_finds_its_place", replace::a_spawn_finds_its_place),
    (
        "only_the_proven_take_over",
        replace::only_the_proven_take_over,
    ),
    (
        "a_failed_reload_changes_nothing",
        replace::a_failed_reload_changes_nothing,
    ),
    ("a_reload_leaves_no_gap", replace::a_reload_leaves_no_gap),
    (
        "the_replaced_are_detached_first",
        replace::the_replaced_are_detached_first,
    ),
    (
        "a_death_promotes_the_successor",
        replace::a_death_promotes_the_successor,
    ),
    ("a_drain_is_covered", transaction::a_drain_is_covered),
    ("a_drain_ends_in_time", transaction::a_drain_ends_in_time),
    ("a_probe_goes_on", transaction::a_probe_goes_on),
    (
        "traffic_follows_health",
        transaction::traffic_follows_health,
    ),
    (
        "a_failing_run_is_replaced",
        transaction::a_failing_run_is_replaced,
    ),
    (
        "an_end_is_recorded_once",
        transaction::an_end_is_recorded_once,
    ),
    ("releases_only_grow", transaction::releases_only_grow),
    (
        "the_release_is_what_serves",
        transaction::the_release_is_what_serves,
    ),
    (
        "the_dead_are_left_alone",
        transaction::the_dead_are_left_alone,
    ),
    (
        "a_part_belongs_to_one_open_roll",
        transaction::a_part_belongs_to_one_open_roll,
    ),
];

/// Returns an error unless this holds.
fn ensure(holds: bool, detail: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(detail()) }
}
