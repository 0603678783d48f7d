//! Model code against what diffusers computes; see `goldens/README.md`.
//! Every test prints the largest difference that it found: `cargo test --features torch --test parity -- --nocapture`.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on shall panic, outside of #[test] functions too")]

mod checkpoint;
mod control;
mod default_model;
mod edits;
mod flux;
mod golden;
mod hand_over;
mod image_tools;
mod img2img;
mod lora;
mod parked;
mod parts;
mod precision;
mod previews;
mod refusals;
mod runs;
mod samplers;
mod schedules;
mod sd3;
mod sdxl;
mod t5;
