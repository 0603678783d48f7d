//! Loads two parts of a checkpoint at the same time. Knows threads; does not know which parts there are.

use std::panic::resume_unwind;
use std::thread;

use crate::pipeline::LoadError;

/// SHA-256 goes through a file in order, so the largest file is what loading waits for: what lies in others is loaded
/// beside it. Of two errors the first part's is told.
pub(super) fn together<A, B: Send>(
    first: impl FnOnce() -> Result<A, LoadError>,
    largest: impl FnOnce() -> Result<B, LoadError> + Send,
) -> Result<(A, B), LoadError> {
    thread::scope(|scope| {
        let largest = scope.spawn(|| {
            let _without_gradients = tch::no_grad_guard(); // holds for one thread
            largest()
        });
        let first = first();
        let largest = largest.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((first?, largest?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_come_and_the_first_error_is_told() {
        let refused = |part: &str| Err::<u8, _>(LoadError::Unsupported(part.to_owned()));
        assert_eq!(together(|| Ok(1), || Ok(2)).ok(), Some((1, 2)));
        let told = |result: Result<(u8, u8), LoadError>| result.unwrap_err().to_string();
        assert_eq!(told(together(|| refused("vae"), || refused("unet"))), "vae");
        assert_eq!(told(together(|| Ok(1), || refused("unet"))), "unet");
    }

    #[test]
    #[should_panic(expected = "the largest")]
    fn a_panic_in_the_other_thread_is_a_panic_here() {
        let _ = together(|| Ok(1), || -> Result<u8, LoadError> { panic!("the largest") });
    }
}
