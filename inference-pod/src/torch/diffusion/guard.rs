//! Keeps libtorch's errors from taking the engine thread down, and gradients from being kept.

use std::any::Any;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::pipeline::PipelineError;
use crate::torch::cuda::meter::AtWork;

/// Runs tensor code. tch's plain functions and operators panic where libtorch throws (out of memory, a shape that
/// does not fit); its fallible twins would hide the formulas behind `?`. So model code is written plainly, and every
/// entry to it goes through here. `call` must leave what it borrows usable when it unwinds.
pub(in crate::torch) fn guarded<T>(
    step: &'static str,
    call: impl FnOnce() -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    let (_without_gradients, _at_work) = (tch::no_grad_guard(), AtWork::begin());
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(failed(step, message(panic.as_ref()))))
}

pub(in crate::torch) fn failed(step: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> PipelineError {
    PipelineError::Failed { step, source: source.into() }
}

/// The text of a panic, without the C++ stack that libtorch appends (escaped, for tch unwraps its errors).
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    let text = text.unwrap_or("panic without a message");
    text.split("\\nException raised from").next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn an_error_of_libtorch_is_a_failed_step_with_its_text() {
        let shape = |side| Tensor::zeros([side, side], (Kind::Float, Device::Cpu));
        let error = guarded("multiply", || Ok(shape(2).matmul(&shape(3)))).unwrap_err();
        assert_eq!(error.to_string(), "failed to multiply");
        let source = error.source().unwrap().to_string();
        assert!(source.ends_with("mat1 and mat2 shapes cannot be multiplied (2x2 and 3x3)"), "{source}");
    }
}
