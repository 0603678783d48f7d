//! What a pod promises, over real mTLS sockets with the fake pipeline. One file for each promise.

#![allow(clippy::unwrap_used, reason = "a test that can't go on shall panic, outside of #[test] functions too")]

mod bounds_its_queue;
mod draws_what_is_asked;
mod edits_pictures;
mod fetches_checkpoints;
mod finishes_before_it_stops;
mod fits_its_memory;
mod frees_the_engine_when_clients_leave;
mod hands_pictures_over;
mod holds_what_the_operator_wants;
mod knows_its_callers;
mod lets_only_the_right_callers_in;
mod moves_models_between_tiers;
mod refuses_bad_requests;
mod rotates_certificates;
mod says_what_it_does_not_know;
mod serves_only_verified_bytes;
mod shows_its_state;
mod steers_by_a_picture;
mod streams_pictures;
mod support;
mod takes_requests_in_order;
mod wears_adapters;
mod writes_the_file_that_is_asked_for;
