//! What a pod can do to a drawn picture before it is sent: make it larger, take its background away, sign where it comes from.
//! Says what there is; each part knows its own work.

use std::sync::Arc;

use crate::cut_out::CutOut;
use crate::seal::Seal;
use crate::upscale::Upscale;

#[derive(Clone, Debug, Default)]
pub struct Finishing {
    /// Absent: transparent backgrounds are refused.
    pub cut_out: Option<Arc<dyn CutOut>>,
    /// Absent: larger pictures than are drawn are refused.
    pub upscale: Option<Arc<dyn Upscale>>,
    /// Absent: pictures are not signed.
    pub seal: Option<Arc<dyn Seal>>,
}
