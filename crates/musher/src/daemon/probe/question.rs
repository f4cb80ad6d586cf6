//! From what the supervisor wants to know to a question that can be asked.

use super::{Question, Way};
use crate::daemon::hub::Hub;
use musher_core::app::ExecMode;
use musher_core::app::probe::{Check, HttpCheck, Probe, ProbeKind};
use musher_core::id::Incarnation;
use musher_core::supervisor::{SpawnPlan, plan};
use musher_core::time::Now;
use std::time::Duration;

impl Hub {
    /// Asks one question of a probe; `Probed` follows.
    pub(crate) fn probe(&mut self, run: Incarnation, kind: ProbeKind, probe: Probe, now: Now) {
        // A run that is forgotten is not asked.
        let Some(mode) = self.mode_of(run) else {
            return;
        };
        let (check, way) = match (probe.check, mode) {
            (Check::Exec { command }, _) => {
                let Some(plan) = self.plan_of(run, now) else {
                    return;
                };
                let way = Way::Command(Box::new(command_plan(plan, &command)));
                (Check::Exec { command }, way)
            }
            (check @ (Check::Http(_) | Check::Tcp { .. }), ExecMode::Cluster) => {
                (check, Way::Worker(self.balancer.injector()))
            }
            (Check::Http(check), ExecMode::Fork) if check.port == 0 => {
                let port = self.plan_of(run, now).as_ref().and_then(own_port);
                let Some(port) = port else {
                    let name = kind.name();
                    let reason = format!("`{name}` does not say which port to ask, nor does PORT");
                    return self.prober.fail(run, kind, reason);
                };
                (Check::Http(HttpCheck { port, ..check }), Way::Address)
            }
            (check @ (Check::Http(_) | Check::Tcp { .. }), ExecMode::Fork) => (check, Way::Address),
        };
        self.prober.ask(Question {
            run,
            kind,
            check,
            timeout: Duration::from_millis(probe.timeout.get()),
            way,
        });
    }

    fn mode_of(&self, run: Incarnation) -> Option<ExecMode> {
        let process = self.supervisor.process(self.supervisor.owner(run)?)?;
        let run = process.runs().find(|other| other.id == run)?;
        Some(run.spec.mode)
    }

    /// Returns what this run was started from, as far as a probe cares.
    fn plan_of(&self, run: Incarnation, now: Now) -> Option<SpawnPlan> {
        let process = self.supervisor.process(self.supervisor.owner(run)?)?;
        let spec = process.runs().find(|other| other.id == run)?.spec.clone();
        let mut process = process.clone();
        process.spec = spec;
        Some(plan::spawn_plan(
            &process,
            process.history.restart_time,
            now,
        ))
    }
}

/// Returns the plan of a command in the place of the app.
fn command_plan(plan: SpawnPlan, command: &[String]) -> SpawnPlan {
    let (program, args) = command.split_first().map_or_else(Default::default, |it| {
        let (program, args) = it;
        (program.clone(), args.to_vec())
    });
    SpawnPlan {
        program,
        args,
        listen: Vec::new(),
        ..plan
    }
}

/// Returns the port a run listens on, as far as it was told one.
fn own_port(plan: &SpawnPlan) -> Option<u16> {
    let given = plan.listen.iter().find_map(|spec| spec.at.port());
    given.or_else(|| {
        let mut variables = plan.env.iter();
        let (_, value) = variables.find(|(name, _)| name == "PORT")?;
        value.parse().ok().filter(|port| *port > 0)
    })
}
