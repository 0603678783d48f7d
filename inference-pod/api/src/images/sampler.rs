//! The samplers that a request may name, and what each costs.
//! Knows names and counts; what they compute is the pod's affair.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The noise side, by diffusers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    #[default]
    Ddim,
    Ddpm,
    Euler,
    EulerAncestral,
    Heun,
    /// DPM-Solver++ of the second order, unless the checkpoint's `solver_order` says another.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// The same, with Karras' noise levels whatever the checkpoint says.
    #[serde(rename = "dpmpp_2m_karras")]
    Dpmpp2mKarras,
    /// The same, with added noise (`sde-dpmsolver++`).
    #[serde(rename = "dpmpp_2m_sde")]
    Dpmpp2mSde,
    #[serde(rename = "unipc")]
    UniPc,
    Lcm,
    /// For models trained by flow matching, and only for them.
    FlowMatchEuler,
}

impl SamplerKind {
    pub const ALL: [Self; 11] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpmpp2m,
        Self::Dpmpp2mKarras,
        Self::Dpmpp2mSde,
        Self::UniPc,
        Self::Lcm,
        Self::FlowMatchEuler,
    ];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_ancestral",
            Self::Heun => "heun",
            Self::Dpmpp2m => "dpmpp_2m",
            Self::Dpmpp2mKarras => "dpmpp_2m_karras",
            Self::Dpmpp2mSde => "dpmpp_2m_sde",
            Self::UniPc => "unipc",
            Self::Lcm => "lcm",
            Self::FlowMatchEuler => "flow_match_euler",
        }
    }

    /// How often the model is called for a picture of so many steps: what the picture costs. Heun's method looks at
    /// both ends of every step but the last, which ends without noise.
    pub fn model_calls(self, steps: u32) -> u32 {
        match self {
            Self::Heun => steps.saturating_mul(2).saturating_sub(1),
            Self::Ddim
            | Self::Ddpm
            | Self::Euler
            | Self::EulerAncestral
            | Self::Dpmpp2m
            | Self::Dpmpp2mKarras
            | Self::Dpmpp2mSde
            | Self::UniPc
            | Self::Lcm
            | Self::FlowMatchEuler => steps,
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sampler_is_called_what_json_calls_it() {
        for kind in SamplerKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(serde_json::from_value::<SamplerKind>(kind.as_str().into()).unwrap(), kind);
        }
    }

    #[test]
    fn heun_calls_the_model_twice_a_step_but_for_the_last_and_no_sampler_overflows() {
        assert_eq!([1, 4, 20].map(|steps| SamplerKind::Heun.model_calls(steps)), [1, 7, 39]);
        assert_eq!(SamplerKind::UniPc.model_calls(20), 20);
        for kind in SamplerKind::ALL {
            assert_eq!(kind.model_calls(0), 0);
            assert!(kind.model_calls(u32::MAX) >= u32::MAX - 1);
        }
    }
}
