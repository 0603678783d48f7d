//! How a picture steers one job: what the `ControlNet` read of it, and how much that counts in each step.
//! Transcribed from diffusers 0.42.1, `pipelines/controlnet/pipeline_controlnet.py`.

use easel_api::images::ControlOptions;
use tch::Tensor;

use crate::torch::families::Control;

#[derive(Debug)]
pub(super) struct Steering {
    /// `[1, channels, h, w]`
    pub(super) hint: Tensor,
    pub(super) options: ControlOptions,
}

impl Steering {
    /// For one row, in `call` of `calls` calls of the model.
    pub(super) fn at(&self, call: usize, calls: usize) -> Control {
        Control { hint: self.hint.shallow_clone(), scales: vec![scale(self.options, call, calls)] }
    }
}

/// `controlnet_keep`, times the scale.
fn scale(options: ControlOptions, call: usize, calls: usize) -> f32 {
    let ControlOptions { scale, start, end } = options;
    let (begins, ends) = (call as f64 / calls as f64, (call + 1) as f64 / calls as f64);
    if begins < start || ends > end { 0.0 } else { scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_steered_when_it_lies_between_start_and_end_as_a_whole() {
        let steered = |start, end| -> Vec<bool> {
            let options = ControlOptions { scale: 0.5, start, end };
            (0..5).map(|call| scale(options, call, 5) > 0.0).collect()
        };
        assert_eq!(steered(0.0, 1.0), [true; 5]);
        assert_eq!(steered(0.2, 0.6), [false, true, true, false, false]);
        assert_eq!(steered(0.1, 0.7), [false, true, true, false, false]);
        assert_eq!(steered(0.81, 1.0), [false; 5]);
    }
}
