//! The system calls of musher: one module per family of kernel calls.
//!
//! This is the only crate with `unsafe` and the only one that talks to the
//! kernel about processes and descriptors. It never decides, never waits
//! longer than it is told to, and knows nothing of asynchronous code: every
//! function is one call, or one short script of calls, with its errors named.
//! Linux 5.3 and later (pidfd_open(2)).
//!
//! | module | kernel calls |
//! |---|---|
//! | [`spawn`] | fork, setsid, dup2, setuid, execve: the life of a start |
//! | [`program`] | the PATH search of execvp(3) |
//! | [`reap`] | waitid, pidfd_open, boot id |
//! | [`kill`] | pidfd_send_signal, the processes of a run |
//! | [`cgroup`] | a control group per run |
//! | [`oom`] | oom_score_adj, who was killed for memory |
//! | [`proc_stat`] | the text of `/proc/<pid>/stat` |
//! | [`stats`] | memory and cpu of processes and host |
//! | [`fd`] | socketpair, pipe, SCM_RIGHTS |
//! | [`listen`] | socket, bind, listen, accept, as libuv does |
//! | [`bpf`] | bpf: who of a group of sockets gets a connection |
//! | [`activation`] | the same as systemd does, for apps that take descriptors |
//! | [`control`] | the daemon's own Unix sockets, peer credentials |
//! | [`lock`] | flock |
//! | [`memory`] | mallopt, malloc_trim |
//! | [`notify`] | words to the service manager |
//! | [`daemonize`] | a detached process and its ready pipe |
//! | [`user`] | `/etc/passwd`, `/etc/group` |
//! | [`clock`] | clock_gettime |
//! | [`signals`] | signal masks, signalfd, child subreaper |

pub mod activation;
pub mod bpf;
pub mod cgroup;
pub mod clock;
pub mod control;
pub mod daemonize;
mod exec;
pub mod fd;
pub mod kill;
pub mod listen;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod oom;
pub mod proc_stat;
pub mod program;
pub mod reap;
pub mod signals;
pub mod spawn;
pub mod stats;
mod unix_path;
pub mod user;

pub use program::resolve_program;
