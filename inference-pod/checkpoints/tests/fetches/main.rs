//! What fetching promises, tried against servers in this process that behave and misbehave as told.

#![allow(clippy::unwrap_used, reason = "a test that can't go on shall panic, outside of #[test] functions too")]

mod brings_checkpoints;
mod keeps_a_cache;
mod says_what_is_wrong;
mod server;
mod world;
