//! The real binary, end to end, each test in a home of its own.

mod harness;

#[path = "e2e/agent.rs"]
mod agent;
#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/config.rs"]
mod config;
#[path = "e2e/daemon.rs"]
mod daemon;
#[path = "e2e/failpoints.rs"]
mod failpoints;
#[path = "e2e/faults.rs"]
mod faults;
#[path = "e2e/features.rs"]
mod features;
#[path = "e2e/files.rs"]
mod files;
#[path = "e2e/fork.rs"]
mod fork;
#[path = "e2e/full_disk.rs"]
mod full_disk;
#[path = "e2e/keeper.rs"]
mod keeper;
#[path = "e2e/listen.rs"]
mod listen;
#[path = "e2e/logs.rs"]
mod logs;
#[path = "e2e/oom.rs"]
mod oom;
#[path = "e2e/probes.rs"]
mod probes;
#[path = "e2e/programs.rs"]
mod programs;
#[path = "e2e/releases.rs"]
mod releases;
#[path = "e2e/startup.rs"]
mod startup;
#[path = "e2e/systemd.rs"]
mod systemd;
#[path = "e2e/takeover.rs"]
mod takeover;
#[path = "e2e/trees.rs"]
mod trees;
#[path = "e2e/update.rs"]
mod update;
#[path = "e2e/verbs.rs"]
mod verbs;
