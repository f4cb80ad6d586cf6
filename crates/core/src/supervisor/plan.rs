//! From a slot to everything exec needs.

use super::action::{Channel, Output, SpawnPlan};
use super::process::Process;
use crate::app::agent::{self, Agent};
use crate::app::env::{RunFacts, child_env};
use crate::app::{AppSpec, ExecMode, Interpreter};
use crate::time::Now;

/// Returns the plan of the next run of a slot.
///
/// `restart_time` is the count the run will have.
pub fn spawn_plan(process: &Process, restart_time: u32, now: Now) -> SpawnPlan {
    let spec = &process.spec;
    let view = process.view(now);
    let facts = RunFacts {
        pm_id: process.pm_id.0,
        instance: process.instance,
        increment: process.increment,
        restart_time,
        unstable_restarts: process.history.unstable_restarts,
        pm_uptime: now.wall.0,
        created_at: process
            .history
            .created
            .map_or(now.wall.0, |(_, wall)| wall.0),
        exit_code: process.history.last_exit.map(crate::exit::ExitStatus::code),
        version: process.facts.version.clone(),
        node_version: process.facts.node_version.clone(),
        prev_restart_delay: process.history.prev_delay.map(|delay| delay.get()),
        out_path: view.out_path(),
        err_path: view.err_path(),
        combined_path: view.combined_path(),
        pid_path: view.pid_path(),
    };
    let (program, args) = command_line(process);
    SpawnPlan {
        app: process.app_key(),
        slot: process.instance,
        balance: spec.balance,
        sticky: spec.sticky.clone(),
        program,
        args,
        env: child_env(spec, &facts),
        cwd: match &spec.release {
            Some(place) => place.cwd.clone(),
            None => spec.cwd.clone(),
        },
        run_as: spec.run_as,
        channel: match spec.mode {
            ExecMode::Fork => Channel::Fork,
            ExecMode::Cluster => Channel::Worker,
        },
        listen: spec.listen.clone(),
        output: Output {
            out: view.out_path(),
            err: view.err_path(),
            combined: view.combined_path(),
            disabled: spec.logs.disabled,
            json: spec.logs.json,
            date_format: spec.logs.date_format.clone(),
        },
        pid_path: view.pid_path(),
        script: script(spec).to_owned(),
    }
}

/// Returns the script of the release in force.
fn script(spec: &AppSpec) -> &str {
    spec.release
        .as_ref()
        .map_or(&spec.script, |place| &place.script)
}

/// Lets Node load the agent before the app, if this app is to have it.
pub fn preload(plan: &mut SpawnPlan, process: &Process, script: &Agent) {
    let options = plan
        .env
        .iter()
        .position(|(name, _)| name == agent::NODE_OPTIONS);
    let own = options.map(|at| plan.env[at].1.as_str());
    if !agent::is_wanted(script, &process.spec, own) {
        return;
    }
    let text = agent::with_agent(&script.path, own);
    match options {
        Some(at) => plan.env[at].1 = text,
        None => plan.env.push((agent::NODE_OPTIONS.to_owned(), text)),
    }
}

fn command_line(process: &Process) -> (String, Vec<String>) {
    let spec = &process.spec;
    match &spec.interpreter {
        Interpreter::None => (script(spec).to_owned(), spec.args.clone()),
        Interpreter::Program(program) => {
            let mut args = spec.interpreter_args.clone();
            args.push(script(spec).to_owned());
            args.extend(spec.args.iter().cloned());
            (program.clone(), args)
        }
    }
}
