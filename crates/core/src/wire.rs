//! What goes over which socket, byte for byte, without the sockets.
//!
//! ```text
//!  rpc.sock   bytes ⇄ amp (frames) ⇄ axon (request, reply) ⇄ rpc (Call, answer) ⇄ Request
//!  pub.sock   bytes ←  amp         ←  axon (event)         ←  bus (payloads)    ←  Action::Emit
//!  app's IPC  node_ipc (lines) → bus::classify → AppMessage, or an event for pub.sock
//!             agent (the words of musher's script in the app)
//!  files      dump (dump.pm2), state (musher's own record), inspect (prettylist)
//! ```
//!
//! PM2's JSON shapes live in [`pm2_env`] and nowhere else. Nothing here decides:
//! it translates, refuses what it cannot translate, and never panics on input.

pub mod agent;
pub mod amp;
pub mod axon;
pub mod bus;
pub mod dump;
pub mod inspect;
pub mod node_ipc;
pub mod pm2_env;
pub mod receipt;
pub mod rpc;
pub mod state;
