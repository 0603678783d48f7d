//! Previews on their way from the engine to whoever asked for them, and after which steps there is one.
//! Bounded: of each picture only the newest waits, and the engine never does. Knows neither pixels nor HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::pipeline::{Picture, PictureRequest};

/// What a picture looked like after a step.
#[derive(Debug)]
pub struct Preview {
    pub request: PictureRequest,
    /// Of the picture's previews, from 0.
    pub index: u32,
    pub picture: Picture,
    /// Of the checkpoint that draws.
    pub digest: String,
}

/// The engine's end. Clones share what waits.
#[derive(Clone, Debug)]
pub struct PreviewSender {
    /// For each picture, at most.
    count: u32,
    waiting: Arc<Waiting>,
}

/// The end of whoever asked. Never says that there will be no more: the request's answer does.
#[derive(Debug)]
pub struct PreviewReceiver(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// By seed, which differs from picture to picture of a request.
    newest: Mutex<BTreeMap<u64, Preview>>,
    bell: Notify,
}

/// For one request, `count` previews of each picture.
pub fn previews(count: u32) -> (PreviewSender, PreviewReceiver) {
    let waiting = Arc::<Waiting>::default();
    (PreviewSender { count, waiting: waiting.clone() }, PreviewReceiver(waiting))
}

impl PreviewSender {
    /// Which preview is due after so many of all model calls of a picture. They are spread evenly and never after the
    /// last call, which makes the picture itself; a run that is too short has fewer.
    pub(super) fn due(&self, taken: u32, calls: u32) -> Option<u32> {
        let count = self.count.min(calls.saturating_sub(1));
        (0..count).find(|index| u64::from(index + 1) * u64::from(calls) / u64::from(count + 1) == u64::from(taken))
    }

    pub(super) fn send(&self, preview: Preview) {
        self.waiting.newest().insert(preview.request.seed, preview);
        self.waiting.bell.notify_one();
    }
}

impl PreviewReceiver {
    /// May be dropped and asked again without losing one.
    pub async fn next(&mut self) -> Preview {
        loop {
            // Made ready before looking, so that no ring is missed; one that rang already is kept.
            let rung = self.0.bell.notified();
            if let Some((_, preview)) = self.0.newest().pop_first() {
                return preview;
            }
            rung.await;
        }
    }
}

impl Waiting {
    fn newest(&self) -> MutexGuard<'_, BTreeMap<u64, Preview>> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use easel_api::images::SamplerKind;

    use super::*;

    fn steps(count: u32, calls: u32) -> Vec<u32> {
        let sender = previews(count).0;
        let due: Vec<(u32, u32)> = (0..=calls).filter_map(|taken| Some((sender.due(taken, calls)?, taken))).collect();
        assert!(due.iter().zip(0..).all(|((index, _), expected)| *index == expected), "{due:?}");
        due.into_iter().map(|(_, taken)| taken).collect()
    }

    #[test]
    fn previews_are_spread_over_the_run_and_a_short_run_has_fewer() {
        assert_eq!(steps(3, 20), [5, 10, 15]);
        assert_eq!(steps(2, 20), [6, 13]);
        assert_eq!(steps(1, 2), [1]);
        assert_eq!(steps(3, 3), [1, 2]);
        assert_eq!(steps(3, 1), [0; 0]);
        assert_eq!(steps(0, 20), [0; 0]);
        for calls in 1..50 {
            assert_eq!(steps(3, calls).len() as u32, 3.min(calls - 1), "{calls}");
        }
    }

    fn preview(seed: u64, index: u32) -> Preview {
        let size = "16x16".parse().unwrap();
        let request = PictureRequest {
            prompt: String::new(),
            negative_prompt: String::new(),
            seed,
            steps: 4,
            guidance_scale: 1.0,
            size,
            sampler: SamplerKind::Ddim,
            edit: None,
            adapters: Vec::new(),
        };
        Preview { request, index, picture: Picture { size, rgb: Vec::new() }, digest: String::new() }
    }

    #[tokio::test]
    async fn of_each_picture_the_newest_waits_and_the_engine_does_not() {
        let (sender, mut receiver) = previews(3);
        assert!(futures::poll!(Box::pin(receiver.next())).is_pending());
        for (seed, index) in [(7, 0), (8, 0), (7, 1), (7, 2)] {
            sender.send(preview(seed, index));
        }
        let mut next = async || {
            let Preview { request, index, .. } = receiver.next().await;
            (request.seed, index)
        };
        assert_eq!((next().await, next().await), ((7, 2), (8, 0)));
        assert!(futures::poll!(Box::pin(next())).is_pending());
    }

    #[tokio::test]
    async fn one_who_waits_is_woken() {
        let (sender, mut receiver) = previews(1);
        let waiting = tokio::spawn(async move { receiver.next().await.index });
        tokio::task::yield_now().await;
        sender.send(preview(1, 0));
        assert_eq!(waiting.await.unwrap(), 0);
    }
}
