//! Where a pod will give a job that it has begun to another pod of its Deployment.
//! The door and its guard only: this version knows no jobs that could be taken over.

use easel_api::error::ApiError;

use super::respond::Refused;

pub(super) async fn take() -> Refused {
    let message = "this version does not take jobs over; draw the picture again from its seed";
    Refused(ApiError::not_implemented(message))
}
