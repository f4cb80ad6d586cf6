//! What goes over which socket: bytes to types and back, without the sockets.

pub mod node_ipc;
