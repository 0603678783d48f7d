//! What a solver remembers of one picture between its steps.
//! Values only, bounded by the solver's order: they can be written down and read again, and hold all that a run needs
//! beside its latents and step.

use tch::Tensor;

use super::noise::Noise;

#[derive(Debug)]
pub struct History {
    /// The newest last. Of DPM-Solver++ and `UniPC` the pictures that the model's last outputs meant, at most as many as
    /// their order; of Heun the slope at the begin of a step that is half done.
    pub outputs: Vec<Tensor>,
    /// The latents before the last step, for solvers that correct it: `UniPC`, and Heun in the middle of a step.
    pub before: Option<Tensor>,
    pub noise: Noise,
}

/// Where a step leads.
#[derive(Debug)]
pub struct Moved {
    pub latents: Tensor,
    pub history: History,
}

impl History {
    /// Of a picture that has not begun. `noise` has drawn its first latents.
    pub fn new(noise: Noise) -> Self {
        Self { outputs: Vec::new(), before: None, noise }
    }

    /// The outputs with one more, without those beyond the newest `most`.
    pub(super) fn with_output(&self, output: Tensor, most: usize) -> Vec<Tensor> {
        let kept = self.outputs.len().min(most.saturating_sub(1));
        let older = self.outputs[self.outputs.len() - kept..].iter().map(Tensor::shallow_clone);
        older.chain([output]).collect()
    }
}

/// Shares the tensors' memory, which nothing writes to.
impl Clone for History {
    fn clone(&self) -> Self {
        Self {
            outputs: self.outputs.iter().map(Tensor::shallow_clone).collect(),
            before: self.before.as_ref().map(Tensor::shallow_clone),
            noise: self.noise,
        }
    }
}

/// The end of a step of a solver that remembers nothing but its random numbers: `spread` is the standard deviation of
/// what is added. Nothing is drawn where nothing would be added, which is at a run's end.
pub(super) fn with_noise(latents: Tensor, spread: f32, history: &History) -> Moved {
    if spread == 0.0 {
        return Moved { latents, history: History::new(history.noise) };
    }
    let (drawn, noise) = history.noise.next(&latents.size());
    let drawn = drawn.to_device(latents.device());
    Moved { latents: latents + drawn * f64::from(spread), history: History::new(noise) }
}
