//! Easel's inference pod as a library, so that tests and the binary share it.

pub mod backend;
pub mod checkpoint;
pub mod cut_out;
pub mod drain;
pub mod engine;
pub mod fake;
pub mod finishing;
pub mod picture_file;
pub mod pipeline;
pub mod png;
pub mod pod;
pub mod scheduler;
pub mod seal;
pub mod server;
#[cfg(feature = "torch")]
pub mod torch;
pub mod upscale;
pub mod vocabulary;

/// An error with its causes, for a log field or a status message.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
