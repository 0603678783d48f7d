//! Easel's operator as a library, so that tests and the binary share it.

pub mod routing_table;
