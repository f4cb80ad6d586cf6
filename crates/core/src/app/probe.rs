//! Probes: how an app is asked whether it is well.
//!
//! Names, defaults and meaning of the fields are those of Kubernetes
//! (`Probe` of core/v1), with times in milliseconds. A probe says what to ask
//! and how often; who asks is the daemon, what follows from the answers is
//! [`crate::supervisor`]'s. Nothing here waits or connects.

use crate::time::Millis;

/// One probe of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// Patience between the start of a run and the first question.
    pub initial_delay: Millis,
    /// From one question to the next. Default 10 s; at least 100 ms.
    pub period: Millis,
    /// How long an answer may take. Default 1 s.
    pub timeout: Millis,
    /// Answers in a row that make a failing run well again. Default 1.
    pub success_threshold: u32,
    /// Failures in a row that make a run fail. Default 3.
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// `GET`; a status from 200 to 399 is well.
    Http(HttpCheck),
    /// A connection that is accepted is well.
    Tcp {
        /// Name or address; `127.0.0.1` unless said.
        host: String,
        /// Port.
        port: u16,
    },
    /// A command in the app's directory and environment; exit code 0 is well.
    Exec {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
}

/// An HTTP question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Name or address; `127.0.0.1` unless said.
    pub host: String,
    /// Port; 0 asks where the run listens: the only port of a cluster worker,
    /// otherwise the first port of `listen`, or PORT of its environment.
    pub port: u16,
    /// Path and query; `/` unless said.
    pub path: String,
    /// Further header fields: name and value.
    pub headers: Vec<(String, String)>,
}

/// What a probe's answer decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// The others wait until it succeeded once; its failure ends the run.
    Startup,
    /// Whether the run takes traffic, and whether a successor is proven.
    Readiness,
    /// Its failure ends the run, which is then restarted.
    Liveness,
}

/// The probes of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Of a slow start.
    pub startup: Option<Probe>,
    /// Of readiness for traffic.
    pub readiness: Option<Probe>,
    /// Of being alive.
    pub liveness: Option<Probe>,
}

impl ProbeKind {
    /// Returns the attribute that declares it.
    pub const fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "startup",
            ProbeKind::Readiness => "readiness",
            ProbeKind::Liveness => "liveness",
        }
    }
}

impl Probes {
    /// Returns the probe of a kind, if the app has one.
    pub const fn get(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
        }
    }
}
