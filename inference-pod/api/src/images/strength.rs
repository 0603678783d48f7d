//! How far a picture is taken back to noise before it is drawn on, and how many steps that leaves.
//! Knows numbers; what the steps compute is the pod's affair.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SamplerKind;

/// Above 0, and at most 1: from hardly changed to drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct Strength(f64);

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("strength is {0}; it must be above 0 and at most 1, such as 0.8")]
pub struct StrengthError(f64);

impl Strength {
    /// Nothing of the picture is left.
    pub const WHOLE: Self = Self(1.0);
    /// diffusers 0.42.1, `StableDiffusionImg2ImgPipeline`.
    pub const OF_IMAGE_TO_IMAGE: Self = Self(0.8);
    /// diffusers 0.42.1, `StableDiffusionInpaintPipeline`.
    pub const OF_INPAINTING: Self = Self::WHOLE;
    /// Of a variation, which has no prompt to follow: the same thing, drawn otherwise.
    pub const OF_VARIATION: Self = Self(0.6);

    pub fn new(value: f64) -> Result<Self, StrengthError> {
        if value > 0.0 && value <= 1.0 { Ok(Self(value)) } else { Err(StrengthError(value)) }
    }

    pub fn value(self) -> f64 {
        self.0
    }

    pub fn is_whole(self) -> bool {
        self >= Self::WHOLE
    }
}

impl TryFrom<f64> for Strength {
    type Error = StrengthError;

    fn try_from(value: f64) -> Result<Self, StrengthError> {
        Self::new(value)
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SamplerKind {
    /// How many of `steps` steps are taken from a picture; the first ones, which would draw what is there already, are
    /// left out. May be 0. diffusers 0.42.1, `get_timesteps` of `pipeline_stable_diffusion_img2img.py`; the pipelines of
    /// models trained by flow matching round the other way (`pipeline_stable_diffusion_3_img2img.py`).
    pub fn steps_of(self, steps: u32, strength: Strength) -> u32 {
        let taken = f64::from(steps) * strength.value();
        match self {
            Self::FlowMatchEuler => steps - (f64::from(steps) - taken) as u32,
            Self::Ddim
            | Self::Ddpm
            | Self::Euler
            | Self::EulerAncestral
            | Self::Heun
            | Self::Dpmpp2m
            | Self::Dpmpp2mKarras
            | Self::Dpmpp2mSde
            | Self::UniPc
            | Self::Lcm => taken as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python's `int(steps * strength)`, and `steps - int(steps - steps * strength)`.
    #[test]
    fn as_many_steps_are_left_as_diffusers_leaves() {
        for (steps, strength, kept, kept_by_flow) in
            [(20, 0.8, 16, 16), (5, 0.5, 2, 3), (5, 0.7, 3, 4), (100, 0.29, 28, 29), (20, 1.0, 20, 20), (9, 0.1, 0, 1)]
        {
            let strength = Strength::new(strength).unwrap();
            assert_eq!(SamplerKind::Ddim.steps_of(steps, strength), kept, "{steps} × {strength}");
            assert_eq!(SamplerKind::FlowMatchEuler.steps_of(steps, strength), kept_by_flow, "{steps} × {strength}");
        }
    }

    #[test]
    fn what_is_no_strength_is_refused_with_the_bounds() {
        for value in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            let error = Strength::new(value).unwrap_err().to_string();
            assert!(error.contains("above 0 and at most 1"), "{error}");
        }
        assert!(serde_json::from_str::<Strength>("1.5").is_err());
        assert_eq!(serde_json::from_str::<Strength>("0.25").unwrap(), Strength::new(0.25).unwrap());
    }
}
