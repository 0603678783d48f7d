//! When a refused checkpoint is tried again.
//! Pure: knows reasons and time as arguments; tries nothing.

use std::time::Duration;

use easel_api::engine::RefusalReason;

const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(5);

/// After the `failures`th refusal in a row; `None` when only another checkpoint can help.
pub(super) fn pause(reason: RefusalReason, failures: u32) -> Option<Duration> {
    let doubled = FIRST * 2_u32.pow(failures.saturating_sub(1).min(16));
    can_pass(reason).then_some(doubled.min(LONGEST))
}

/// Whether the same digest may be served later without a change of the model.
fn can_pass(reason: RefusalReason) -> bool {
    match reason {
        RefusalReason::NotFound
        | RefusalReason::Unreachable
        | RefusalReason::Unauthorized
        | RefusalReason::Truncated
        | RefusalReason::NoSpace
        | RefusalReason::DigestMismatch
        | RefusalReason::Unsigned
        | RefusalReason::SignatureInvalid => true,
        // The bytes are those that were named, and they are no better tomorrow.
        RefusalReason::Unsupported | RefusalReason::UnsafeFormat | RefusalReason::LoadFailed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_five_seconds_to_five_minutes() {
        let seconds = |failures| pause(RefusalReason::Unreachable, failures).unwrap().as_secs();
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8, 1000].map(seconds), [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn what_the_bytes_themselves_are_is_not_tried_again() {
        for reason in [RefusalReason::Unsupported, RefusalReason::UnsafeFormat, RefusalReason::LoadFailed] {
            assert_eq!(pause(reason, 1), None, "{reason:?}");
        }
    }
}
