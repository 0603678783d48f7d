//! How long steps take, by pipeline, shape and jobs in the batch, from the last that were measured.
//! Knows durations and shapes; does not know what waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::PipelineId;
use crate::pipeline::BatchKey;

/// Enough that a few steps beside a load or a garbage collection change nothing, few enough to follow a device that
/// slows down within one picture. Odd: the median is one of them.
const KEPT: usize = 15;
/// Clients choose sizes, so there may be any number of shapes.
const MAX_SHAPES: usize = 256;

/// What a measurement holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub pipeline: PipelineId,
    pub key: BatchKey,
    pub jobs: usize,
}

/// The last durations of one thing, of which the median speaks.
#[derive(Clone, Debug, Default)]
pub struct Recent(VecDeque<Duration>);

#[derive(Debug, Default)]
pub struct StepTimes {
    shapes: BTreeMap<Shape, Entry>,
    pushed: u64,
}

#[derive(Debug, Default)]
struct Entry {
    recent: Recent,
    /// Grows with every push to any shape.
    last: u64,
}

impl Recent {
    pub fn push(&mut self, duration: Duration) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(duration);
    }

    pub fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

impl Shape {
    /// To which the time of a step is about proportional.
    fn rows(self) -> f64 {
        let positions = f64::from(self.key.height) * f64::from(self.key.width);
        positions * f64::from(self.key.rows) * self.jobs as f64
    }
}

impl StepTimes {
    pub fn push(&mut self, shape: Shape, step: Duration) {
        if self.shapes.len() >= MAX_SHAPES && !self.shapes.contains_key(&shape) {
            let oldest = self.shapes.iter().min_by_key(|(_, entry)| entry.last).map(|(shape, _)| *shape);
            oldest.map(|oldest| self.shapes.remove(&oldest));
        }
        self.pushed += 1;
        let entry = self.shapes.entry(shape).or_default();
        entry.recent.push(step);
        entry.last = self.pushed;
    }

    fn measured(&self) -> impl Iterator<Item = (Shape, Duration)> {
        self.shapes.iter().filter_map(|(shape, entry)| Some((*shape, entry.recent.median()?)))
    }

    /// The medians, of the shape that was stepped last first.
    pub fn latest(&self) -> Vec<(Shape, Duration)> {
        let mut shapes: Vec<_> = self.shapes.iter().collect();
        shapes.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.last));
        shapes.into_iter().filter_map(|(shape, entry)| Some((*shape, entry.recent.median()?))).collect()
    }

    /// Measured, or scaled from the most alike that was measured; `None` before the first measurement.
    pub fn estimate(&self, shape: Shape) -> Option<Duration> {
        let (like, time) = self.measured().min_by_key(|(other, _)| likeness(shape, *other))?;
        let ratio = shape.rows() / like.rows();
        // Jobs share a part of a step, so fewer of them do not take that much less: stay above.
        let same_shape = (like.pipeline, like.key) == (shape.pipeline, shape.key);
        Some(time.mul_f64(if same_shape { ratio.max(1.0) } else { ratio }))
    }

    pub fn forget(&mut self, gone: impl Fn(PipelineId) -> bool) {
        self.shapes.retain(|shape, _| !gone(shape.pipeline));
    }
}

/// How far a measurement is from what is asked: the least is the nearest; the fields are compared from the top down.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    other_pipeline: bool,
    other_key: bool,
    /// Of the logarithms of their work, in hundredths.
    distance: u64,
    other: Shape,
}

fn likeness(asked: Shape, other: Shape) -> Likeness {
    Likeness {
        other_pipeline: asked.pipeline != other.pipeline,
        other_key: asked.key != other.key,
        distance: (100.0 * (asked.rows() / other.rows()).ln().abs()) as u64,
        other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(pipeline: u64, side: u32, jobs: usize) -> Shape {
        let key = BatchKey { input_channels: 4, height: side, width: side, text_length: 77, rows: 2 };
        Shape { pipeline: PipelineId(pipeline), key, jobs }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_steps_that_took_far_too_long_change_nothing_and_a_slower_device_is_followed() {
        let mut times = Recent::default();
        assert_eq!(times.median(), None);
        for step in 0..KEPT {
            times.push(if step % 4 == 0 { 1000 * MS } else { 20 * MS });
        }
        assert_eq!(times.median(), Some(20 * MS));
        (0..=KEPT / 2).for_each(|_| times.push(40 * MS));
        assert!(times.median() >= Some(40 * MS));
    }

    #[test]
    fn what_was_not_measured_is_scaled_from_the_most_alike() {
        let mut times = StepTimes::default();
        assert_eq!(times.estimate(shape(1, 8, 1)), None);
        times.push(shape(1, 8, 2), 20 * MS);
        times.push(shape(1, 16, 1), 50 * MS);
        times.push(shape(2, 8, 1), 7 * MS);
        assert_eq!(times.estimate(shape(1, 8, 2)), Some(20 * MS));
        assert_eq!(times.estimate(shape(1, 8, 1)), Some(20 * MS), "fewer jobs: stay above");
        assert_eq!(times.estimate(shape(1, 8, 4)), Some(40 * MS));
        assert_eq!(times.estimate(shape(1, 32, 1)), Some(200 * MS));
        assert_eq!(times.estimate(shape(2, 16, 1)), Some(28 * MS));
        times.forget(|pipeline| pipeline == PipelineId(1));
        assert_eq!(times.measured().count(), 1);
    }

    #[test]
    fn clients_that_choose_ever_other_sizes_do_not_make_it_grow() {
        let mut times = StepTimes::default();
        (1..2000).for_each(|side| times.push(shape(1, side, 1), MS));
        assert_eq!(times.latest().len(), MAX_SHAPES);
        assert_eq!(times.latest()[0].0, shape(1, 1999, 1), "those that were used last are kept");
    }
}
