//! Easel's operator as a library, so that tests and the binary share it.

pub mod cleanup;
pub mod cli;
pub mod control;
pub mod controller;
pub mod gateway;
pub mod identity;
pub mod index;
pub mod leader;
pub mod names;
pub mod observe;
pub mod planning;
pub mod pod_client;
pub mod routing_table;
pub mod run;
pub mod stores;
#[cfg(test)]
mod testing;
pub mod wire;
