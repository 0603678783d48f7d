//! What pictures on their way take of the device's memory, beside the weights: a prior, and what was measured.
//! Knows shapes and bytes; does not know jobs, deadlines or what is loaded.

use std::collections::BTreeMap;

use super::PipelineId;
use crate::pipeline::{BatchKey, DecodeMemory};

/// Shapes that are remembered; clients choose sizes, so there may be any number of them.
const MAX_KEYS: usize = 256;
/// Latents, the sampler's history of them, the first noise and a picture to edit: f32, each.
const LATENTS_HELD: u64 = 4;
/// f32 of the widest text that pipelines know, a token: T5's.
const TEXT_BYTES: u64 = 4096 * 4;

/// How much a model call takes, by shape and jobs. Assumes of a model that more jobs take more, and twice as many not
/// more than twice as much.
#[derive(Debug)]
pub struct MemoryProfile {
    /// Bytes for each latent position and row of a job, until measured.
    prior: u64,
    /// The greatest that was seen, by the number of jobs.
    peaks: BTreeMap<(PipelineId, BatchKey), BTreeMap<usize, u64>>,
    /// Of those that pictures were asked of.
    decoders: BTreeMap<PipelineId, DecodeMemory>,
}

impl MemoryProfile {
    pub fn new(prior: u64) -> Self {
        Self { prior, peaks: BTreeMap::new(), decoders: BTreeMap::new() }
    }

    /// While a model call for so many jobs lasts, or one of them is decoded.
    pub fn call_bytes(&self, pipeline: PipelineId, key: BatchKey, jobs: usize) -> u64 {
        self.step_bytes(pipeline, key, jobs).max(self.decode_bytes(pipeline, key))
    }

    fn decode_bytes(&self, pipeline: PipelineId, key: BatchKey) -> u64 {
        let DecodeMemory { per_position, most_positions } = self.decoders.get(&pipeline).copied().unwrap_or_default();
        per_position.saturating_mul(positions(key).min(most_positions))
    }

    fn step_bytes(&self, pipeline: PipelineId, key: BatchKey, jobs: usize) -> u64 {
        let Some(peaks) = self.peaks.get(&(pipeline, key)) else {
            return self.prior.saturating_mul(positions(key) * u64::from(key.rows) * jobs as u64);
        };
        let below = peaks.range(..=jobs).map(|(_, peak)| *peak).max();
        let above = peaks.range(jobs..).map(|(_, peak)| *peak).min();
        let (most, peak) = peaks.last_key_value().map_or((1, 0), |(most, peak)| (*most, *peak));
        let scaled = || peak.saturating_mul(jobs as u64).div_ceil(most as u64);
        above.unwrap_or_else(scaled).max(below.unwrap_or_default())
    }

    /// From a job's first step until it is drawn, also while others go first.
    pub fn held_bytes(&self, key: BatchKey) -> u64 {
        let latents = positions(key) * u64::from(key.input_channels) * 4 * LATENTS_HELD;
        latents + u64::from(key.rows) * u64::from(key.text_length) * TEXT_BYTES
    }

    /// The device says that a call took so much.
    pub fn observe(&mut self, pipeline: PipelineId, key: BatchKey, jobs: usize, peak: u64) {
        if self.peaks.len() >= MAX_KEYS && !self.peaks.contains_key(&(pipeline, key)) {
            self.peaks.pop_first();
        }
        let known = self.peaks.entry((pipeline, key)).or_default().entry(jobs.max(1)).or_default();
        *known = peak.max(*known);
    }

    /// What pictures of this pipeline take when they are decoded.
    pub fn decodes(&mut self, pipeline: PipelineId, memory: DecodeMemory) {
        self.decoders.insert(pipeline, memory);
    }

    pub fn forget(&mut self, gone: impl Fn(PipelineId) -> bool) {
        self.peaks.retain(|(pipeline, _), _| !gone(*pipeline));
        self.decoders.retain(|pipeline, _| !gone(*pipeline));
    }
}

fn positions(key: BatchKey) -> u64 {
    u64::from(key.height) * u64::from(key.width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIPELINE: PipelineId = PipelineId(1);

    fn key(side: u32) -> BatchKey {
        BatchKey { input_channels: 4, height: side, width: side, text_length: 77, rows: 2 }
    }

    #[test]
    fn the_prior_counts_positions_rows_and_jobs_until_something_was_measured() {
        let mut profile = MemoryProfile::new(10);
        assert_eq!(profile.call_bytes(PIPELINE, key(8), 3), 10 * 64 * 2 * 3);
        profile.observe(PIPELINE, key(8), 2, 500);
        assert_eq!([1, 2, 3, 4].map(|jobs| profile.call_bytes(PIPELINE, key(8), jobs)), [500, 500, 750, 1000]);
        assert_eq!(profile.call_bytes(PIPELINE, key(16), 1), 10 * 256 * 2, "another shape knows nothing of it");
        profile.forget(|pipeline| pipeline == PIPELINE);
        assert_eq!(profile.call_bytes(PIPELINE, key(8), 1), 10 * 64 * 2);
    }

    #[test]
    fn a_picture_must_fit_when_it_is_decoded_too_and_a_large_one_is_decoded_in_parts() {
        let mut profile = MemoryProfile::new(10);
        profile.decodes(PIPELINE, DecodeMemory { per_position: 100, most_positions: 200 });
        assert_eq!([1, 5, 6].map(|jobs| profile.call_bytes(PIPELINE, key(8), jobs)), [6400, 6400, 7680]);
        assert_eq!(profile.call_bytes(PIPELINE, key(16), 1), 100 * 200);
        profile.forget(|pipeline| pipeline == PIPELINE);
        assert_eq!(profile.call_bytes(PIPELINE, key(8), 1), 10 * 64 * 2);
    }

    #[test]
    fn clients_that_choose_ever_other_sizes_do_not_make_it_grow() {
        let mut profile = MemoryProfile::new(10);
        (1..2000).for_each(|side| profile.observe(PIPELINE, key(side), 1, 5));
        assert_eq!(profile.peaks.len(), MAX_KEYS);
    }

    proptest! {
        #[test]
        fn what_was_seen_is_never_said_to_take_less_and_more_jobs_never_less_than_fewer(
            seen in prop::collection::vec((1usize..9, 1u64..1000), 1..20)
        ) {
            let mut profile = MemoryProfile::new(1);
            for (jobs, peak) in &seen {
                profile.observe(PIPELINE, key(8), *jobs, *peak);
            }
            for (jobs, peak) in &seen {
                prop_assert!(profile.call_bytes(PIPELINE, key(8), *jobs) >= *peak);
            }
            for jobs in 1..20 {
                prop_assert!(profile.call_bytes(PIPELINE, key(8), jobs) <= profile.call_bytes(PIPELINE, key(8), jobs + 1));
            }
        }
    }
}
