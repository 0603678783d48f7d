//! The gateway over real TCP, before fake pods over real mutual TLS.
//! One module a promise: what is refused, what is answered, what survives a pod, what waits.
#![allow(clippy::unwrap_used)] // the lint spares only functions that are tests themselves

#[path = "gateway/answers.rs"]
mod answers;
#[path = "gateway/authority.rs"]
mod authority;
#[path = "gateway/demand.rs"]
mod demand;
#[path = "gateway/edits.rs"]
mod edits;
#[path = "gateway/fake_pod.rs"]
mod fake_pod;
#[path = "gateway/hand_over.rs"]
mod hand_over;
#[path = "gateway/inputs.rs"]
mod inputs;
#[path = "gateway/retries.rs"]
mod retries;
#[path = "gateway/stage.rs"]
mod stage;
#[path = "gateway/streams.rs"]
mod streams;
#[path = "gateway/trust.rs"]
mod trust;
#[path = "gateway/waiting.rs"]
mod waiting;
