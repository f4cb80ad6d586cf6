//! Verbs end to end against a canned daemon.
