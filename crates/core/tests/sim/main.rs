//! The simulator: whole histories of supervision from a seed, in a fake world.
//!
//! Replay one with `MUSHER_SIM_SEED=<seed> cargo test -p musher-core --test sim
//! -- --nocapture histories`; every step of it is printed.
#![allow(clippy::wildcard_enum_match_arm, clippy::unwrap_used)]

mod generate;
mod invariants;
mod kernel;
mod model;
mod mutants;
mod rng;
mod rolls;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Broken, STORIES, World};

/// How many histories are lived through unless `MUSHER_SIM_HISTORIES` says otherwise.
const N_HISTORIES: u64 = 13_000;

/// What a history consisted of: its steps, and how often each story came.
type Lived = (u64, [u64; STORIES.len()]);

/// Lives through one history of the supervisor as it is.
fn history(seed: u64, is_told: bool) -> Result<Lived, Broken> {
    let mut world = World::new(seed, is_told, |supervisor| supervisor);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Broken {
            rule: "nothing_panics",
            detail: "see above".to_owned(),
        })
    });
    outcome.map(|()| (world.n_steps, world.n_stories))
}

#[test]
#[allow(clippy::disallowed_methods)] // The seed comes from outside, the decisions do not.
fn histories_keep_every_rule() {
    if let Ok(seed) = std::env::var("MUSHER_SIM_SEED") {
        let outcome = history(seed.parse().unwrap(), true);
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
        return;
    }
    let mut n_steps = 0;
    let mut n_stories = [0; STORIES.len()];
    let mut failures: BTreeMap<&str, (u64, u64, String)> = BTreeMap::new();
    let n_histories =
        std::env::var("MUSHER_SIM_HISTORIES").map_or(N_HISTORIES, |n| n.parse().unwrap());
    for seed in 0..n_histories {
        match history(seed, false) {
            Ok((n, stories)) => {
                n_steps += n;
                n_stories
                    .iter_mut()
                    .zip(stories)
                    .for_each(|(sum, n)| *sum += n);
            }
            Err(Broken { rule, detail }) => {
                failures.entry(rule).or_insert((seed, 0, detail)).1 += 1;
            }
        }
    }
    println!("histories: seeds 0 to {n_histories}, steps: {n_steps}");
    for (rule, (seed, n, detail)) in &failures {
        println!("{n} times {rule}: {detail}\n    replay with MUSHER_SIM_SEED={seed}");
    }
    let lived: Vec<_> = STORIES
        .iter()
        .map(|(name, _)| *name)
        .zip(n_stories)
        .collect();
    println!("{lived:?}");
    for (story, n) in lived {
        assert!(n >= n_histories / 100, "{story} came {n} times only");
    }
    let is_whole = n_histories >= N_HISTORIES;
    assert!(n_steps >= 1_000_000 || !is_whole, "{n_steps} steps only");
    assert!(failures.is_empty(), "{} rules were broken", failures.len());
}
