//! How much a picture steers a model with a `ControlNet`, and when.
//! Knows the fields and their bounds; what the steps compute is the pod's affair.

use serde::{Deserialize, Serialize};

use super::{invalid_value, unsupported};
use crate::error::ApiError;

/// Residuals that are so much larger than those that the model was trained with draw nothing but noise.
const MAX_SCALE: f32 = 10.0;

/// Extension: the fields of an edit that say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_scale: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_start: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_end: Option<f64>,
}

/// What they mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ControlOptions {
    /// Of the residuals; 0 steers nothing.
    pub scale: f32,
    /// Shares of the steps, 0 to 1, the first below the second: a step is steered if it lies between them as a whole.
    pub start: f64,
    pub end: f64,
}

/// In full, all the time. diffusers 0.42.1, `StableDiffusionControlNetPipeline`.
impl Default for ControlOptions {
    fn default() -> Self {
        Self { scale: 1.0, start: 0.0, end: 1.0 }
    }
}

impl From<ControlOptions> for ControlFields {
    fn from(ControlOptions { scale, start, end }: ControlOptions) -> Self {
        Self { control_scale: Some(scale), control_start: Some(start), control_end: Some(end) }
    }
}

impl ControlFields {
    pub(super) const NAMES: [&'static str; 3] = ["control_scale", "control_start", "control_end"];

    /// The first that is there.
    pub(super) fn named(&self) -> Option<&'static str> {
        let Self { control_scale, control_start, control_end } = self;
        let there = [control_scale.is_some(), control_start.is_some(), control_end.is_some()];
        Self::NAMES.into_iter().zip(there).find_map(|(name, there)| there.then_some(name))
    }

    pub(super) fn refuse(&self) -> Result<(), ApiError> {
        match self.named() {
            Some(name) => {
                let message = format!("{name} is for models that draw as a picture steers: leave it out");
                Err(unsupported(name, &message))
            }
            None => Ok(()),
        }
    }

    pub(super) fn check(&self) -> Result<(), ApiError> {
        let ControlOptions { scale, start, end } = self.options();
        if !(0.0..=MAX_SCALE).contains(&scale) {
            return Err(invalid_value("control_scale", format!("control_scale must be 0 to {MAX_SCALE}")));
        }
        for (name, share) in [("control_start", start), ("control_end", end)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(invalid_value(name, format!("{name} is a share of the steps: it must be 0 to 1")));
            }
        }
        if start >= end {
            let message = format!("control_start is {start} and must be below control_end, which is {end}");
            return Err(invalid_value(
                if self.control_start.is_some() { "control_start" } else { "control_end" },
                message,
            ));
        }
        Ok(())
    }

    pub(super) fn options(&self) -> ControlOptions {
        let whole = ControlOptions::default();
        ControlOptions {
            scale: self.control_scale.unwrap_or(whole.scale),
            start: self.control_start.unwrap_or(whole.start),
            end: self.control_end.unwrap_or(whole.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_contradict_each_other_or_leave_their_bounds_are_refused_by_name() {
        let fields =
            |control_scale, control_start, control_end| ControlFields { control_scale, control_start, control_end };
        let cases = [
            (fields(Some(-0.1), None, None), "control_scale"),
            (fields(Some(f32::NAN), None, None), "control_scale"),
            (fields(Some(10.1), None, None), "control_scale"),
            (fields(None, Some(-0.1), None), "control_start"),
            (fields(None, None, Some(1.1)), "control_end"),
            (fields(None, None, Some(0.0)), "control_end"),
            (fields(None, Some(0.5), Some(0.5)), "control_start"),
            (fields(None, Some(1.0), None), "control_start"),
        ];
        for (fields, param) in cases {
            let error = fields.check().expect_err(param);
            assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{fields:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_in_full_all_the_time() {
        assert_eq!(ControlFields::default().named(), None);
        assert_eq!(ControlFields::default().options(), ControlOptions { scale: 1.0, start: 0.0, end: 1.0 });
        let later = ControlFields { control_start: Some(0.25), ..ControlFields::default() };
        later.check().unwrap();
        assert_eq!(
            (later.named(), later.options()),
            (Some("control_start"), ControlOptions { start: 0.25, ..ControlOptions::default() })
        );
    }
}
