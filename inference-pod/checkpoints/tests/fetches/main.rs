//! What fetching promises, tried against servers in this process that behave and misbehave as told.

mod brings_checkpoints;
mod keeps_a_cache;
mod says_what_is_wrong;
mod server;
mod world;
