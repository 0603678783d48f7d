//! Which rows of the batch that is being computed wear which adapters.
//! Knows rows and layers' numbers; does not know jobs or requests.
//!
//! A forward pass is one call on one thread, and every layer of the model asks. So what the rows wear is kept for the
//! thread while the call lasts, instead of in the signature of every module between the batch and the layers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::Tensor;

use super::{Adapter, LowRank, Site};

/// An adapter and how much of it; 0 is none, 1 as it was trained.
#[derive(Clone, Copy, Debug)]
pub(in crate::torch) struct Worn<'a> {
    pub(in crate::torch) adapter: &'a Adapter,
    pub(in crate::torch) weight: f64,
}

/// What one layer adds to a stretch of rows.
struct Change {
    start: i64,
    length: i64,
    low_rank: LowRank,
    /// Weight times scale.
    factor: f64,
}

#[derive(Default)]
struct Rows {
    count: i64,
    changes: BTreeMap<Site, Vec<Change>>,
}

thread_local! {
    static ROWS: RefCell<Rows> = RefCell::default();
}

/// Puts the rows back to bare when the call ends, also by a panic.
struct Bare;

impl Drop for Bare {
    fn drop(&mut self) {
        ROWS.take();
    }
}

/// Runs a forward pass of as many rows as `worn` has entries, each of which wears these.
pub(in crate::torch) fn wearing<T>(worn: &[Vec<Worn<'_>>], forward: impl FnOnce() -> T) -> T {
    let mut rows = Rows { count: length_of(worn), changes: BTreeMap::new() };
    let mut start = 0;
    for same in worn.chunk_by(|a, b| are_same(a, b)) {
        let length = length_of(same);
        for Worn { adapter, weight } in &same[0] {
            for (site, low_rank) in &adapter.changes {
                let (low_rank, factor) = (low_rank.shallow_clone(), weight * low_rank.scale);
                rows.changes.entry(*site).or_default().push(Change { start, length, low_rank, factor });
            }
        }
        start += length;
    }
    ROWS.set(rows);
    let _bare = Bare;
    forward()
}

/// A batch has far fewer rows than an `i64` counts.
fn length_of(rows: &[Vec<Worn<'_>>]) -> i64 {
    i64::try_from(rows.len()).unwrap_or(i64::MAX)
}

fn are_same(a: &[Worn], b: &[Worn]) -> bool {
    let same = |(a, b): (&Worn, &Worn)| std::ptr::eq(a.adapter, b.adapter) && a.weight.to_bits() == b.weight.to_bits();
    a.len() == b.len() && a.iter().zip(b).all(same)
}

impl Site {
    /// Whether no row of the batch has an adapter for this layer.
    pub(in crate::torch) fn is_bare(self) -> bool {
        ROWS.with_borrow(|rows| !rows.changes.contains_key(&self))
    }

    /// `out` is what the layer made of `x`; `compute` applies A and B to rows of `x` as the layer applies its weight. Rows
    /// are the first axis of both. `out` is changed in place: nobody else has it yet.
    pub(in crate::torch) fn adapted(
        self,
        x: &Tensor,
        out: Tensor,
        compute: impl Fn(&Tensor, &LowRank) -> Tensor,
    ) -> Tensor {
        ROWS.with_borrow(|rows| {
            for Change { start, length, low_rank, factor } in rows.changes.get(&self).into_iter().flatten() {
                assert_eq!(x.size()[0], rows.count, "a layer's first axis are the rows of the batch");
                let change = compute(&x.narrow(0, *start, *length), low_rank) * *factor;
                let mut part = out.narrow(0, *start, *length);
                part += change;
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tch::{Device, Kind};

    use super::*;
    use crate::torch::lora::{Registry, Shape};

    /// Adds `scale` times the sum of a row to its only output.
    fn adapter(site: Site, scale: f64) -> Adapter {
        let ones = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        let low_rank = LowRank { down: ones([1, 3]), up: ones([1, 1]), scale };
        Adapter { changes: BTreeMap::from([(site, low_rank)]), bytes: 16 }
    }

    fn site() -> Site {
        Registry::default().add("unet", "conv_in", Shape::Linear { input: 3, output: 1 })
    }

    fn outputs(site: Site, rows: i64) -> Vec<f64> {
        let x = Tensor::ones([rows, 3], (Kind::Float, Device::Cpu));
        let out = Tensor::zeros([rows, 1], (Kind::Float, Device::Cpu));
        let out =
            site.adapted(&x, out, |x, pair| x.linear(&pair.down, None::<&Tensor>).linear(&pair.up, None::<&Tensor>));
        Vec::try_from(out.view([-1]).to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn every_row_gets_what_it_wears_and_no_other() {
        let site = site();
        let (ink, wax) = (adapter(site, 1.0), adapter(site, 10.0));
        let (ink, wax) = (Worn { adapter: &ink, weight: 1.0 }, Worn { adapter: &wax, weight: 0.5 });
        let worn = [vec![ink], vec![ink], vec![], vec![wax, ink], vec![wax]];
        assert_eq!(wearing(&worn, || outputs(site, 5)), [3.0, 3.0, 0.0, 18.0, 15.0]);
        assert_eq!(wearing(&worn, || outputs(self::site(), 5)), [0.0; 5], "another layer is not changed");
        assert_eq!(outputs(site, 5), [0.0; 5], "nothing is worn afterwards");
    }

    #[test]
    fn nothing_is_worn_after_a_panic_and_a_batch_of_another_length_is_one() {
        let site = site();
        let ink = adapter(site, 1.0);
        let worn = [vec![Worn { adapter: &ink, weight: 1.0 }]];
        assert!(catch_unwind(AssertUnwindSafe(|| wearing(&worn, || outputs(site, 2)))).is_err());
        assert_eq!(outputs(site, 2), [0.0; 2]);
    }
}
