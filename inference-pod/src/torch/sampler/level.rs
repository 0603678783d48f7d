//! One noise level, as solvers in the logarithm of signal over noise see it.

/// Of latents that are `alpha` × picture + `sigma` × noise, with a variance of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    pub(super) alpha: f32,
    pub(super) sigma: f32,
    /// Logarithm of `alpha` over `sigma`; infinite where no noise is left.
    pub(super) lambda: f32,
}

impl Level {
    /// `_sigma_to_alpha_sigma_t` of diffusers 0.42.1, `schedulers/scheduling_dpmsolver_multistep.py`; `ratio` is noise
    /// over picture.
    pub(super) fn of(ratio: f32) -> Self {
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        let sigma = ratio * alpha;
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variance_stays_1_and_the_end_is_infinitely_clear() {
        for ratio in [0.0_f32, 0.03, 1.0, 14.6, 4096.0] {
            let Level { alpha, sigma, lambda: _ } = Level::of(ratio);
            assert!((alpha * alpha + sigma * sigma - 1.0).abs() < 1e-6, "{ratio}");
        }
        assert!(Level::of(0.0).lambda.is_infinite() && Level::of(0.0).lambda > 0.0);
        assert!(Level::of(1.0).lambda.abs() < 1e-6);
    }
}
