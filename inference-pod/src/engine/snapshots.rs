//! Snapshots on their way from the engine to whoever holds the request: what a picture has come to, and of what.
//! Bounded: of each picture only the newest waits, and the engine never does. Knows neither tensors nor HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use easel_api::images::ControlOptions;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::pipeline::{Edit, PictureRequest, Way, WornAdapter};

/// Changes whenever older pods would misread what newer ones write.
const VERSION: u32 = 1;
/// Of the label's length, in bytes.
const PREFIX: usize = 4;

/// What stands before the pipeline's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    version: u32,
    /// Of the checkpoint that draws.
    digest: String,
    /// Of the request for this one picture.
    request: String,
    /// Model calls so far.
    taken: u32,
}

/// How far a picture has come elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Model calls, fewer than the picture takes.
    pub(super) taken: u32,
    /// The pipeline's.
    pub(super) exported: Bytes,
}

pub(super) fn pack(digest: &str, request: &PictureRequest, taken: u32, exported: &[u8]) -> Bytes {
    let label = Label { version: VERSION, digest: digest.to_owned(), request: fingerprint(request), taken };
    let label = serde_json::to_vec(&label).unwrap_or_default(); // text and numbers can't fail
    let length = u32::try_from(label.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &label, exported].concat().into()
}

/// `None` for what is of another checkpoint or request, or can't be read.
pub(super) fn unpack(digest: &str, request: &PictureRequest, bytes: &Bytes) -> Option<Begun> {
    let (length, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let label: Label = serde_json::from_slice(rest.get(..length)?).ok()?;
    let taken = label.taken;
    let ours = Label { version: VERSION, digest: digest.to_owned(), request: fingerprint(request), taken };
    let begun = Begun { taken, exported: bytes.slice(PREFIX + length..) };
    (label == ours && taken < request.model_calls()).then_some(begun)
}

/// Of all that decides what is drawn. Every part has its length before it, so that no two requests read the same.
fn fingerprint(request: &PictureRequest) -> String {
    let PictureRequest { prompt, negative_prompt, seed, steps, guidance_scale, size, sampler, edit, adapters } =
        request;
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(prompt.as_bytes());
    part(negative_prompt.as_bytes());
    part(&seed.to_be_bytes());
    part(&steps.to_be_bytes());
    part(&guidance_scale.to_be_bytes());
    part(size.to_string().as_bytes());
    part(sampler.as_str().as_bytes());
    part(request.task().verb().as_bytes());
    if let Some(Edit { picture, way }) = edit {
        part(&picture.rgb);
        match way {
            Way::Instruct { image_guidance_scale } => part(&image_guidance_scale.to_be_bytes()),
            Way::ImageToImage { strength } => part(&strength.value().to_be_bytes()),
            Way::Inpaint { mask, strength } => {
                part(&mask.edited.iter().map(|edited| u8::from(*edited)).collect::<Vec<_>>());
                part(&strength.value().to_be_bytes());
            }
            Way::Control(ControlOptions { scale, start, end }) => {
                part(&scale.to_be_bytes());
                part(&start.to_be_bytes());
                part(&end.to_be_bytes());
            }
        }
    }
    for WornAdapter { name: _, digest, weight } in adapters {
        part(digest.as_bytes());
        part(&weight.to_be_bytes());
    }
    STANDARD.encode(hash.finalize())
}

/// The engine's end. Clones share what waits.
#[derive(Clone, Debug)]
pub struct SnapshotSender {
    /// Model calls between two of a picture; 0: only when the pod goes.
    every: u32,
    waiting: Arc<Waiting>,
}

/// The end of whoever holds the request. Never says that there will be no more: the request's answer does.
#[derive(Debug)]
pub struct SnapshotReceiver(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// By the picture's place in its request.
    newest: Mutex<BTreeMap<u32, Bytes>>,
    bell: Notify,
}

/// For one request.
pub fn snapshots(every: u32) -> (SnapshotSender, SnapshotReceiver) {
    let waiting = Arc::<Waiting>::default();
    (SnapshotSender { every, waiting: waiting.clone() }, SnapshotReceiver(waiting))
}

impl SnapshotSender {
    /// After so many of all model calls of a picture. Never after the last, which makes the picture itself.
    pub(super) fn is_due(&self, taken: u32, calls: u32) -> bool {
        self.every > 0 && taken.is_multiple_of(self.every) && taken < calls
    }

    pub(super) fn send(&self, picture: u32, bytes: Bytes) {
        self.waiting.newest().insert(picture, bytes);
        self.waiting.bell.notify_one();
    }
}

impl SnapshotReceiver {
    /// A picture's place in its request, and its snapshot. May be dropped and asked again without losing one.
    pub async fn next(&mut self) -> (u32, Bytes) {
        loop {
            // Made ready before looking, so that no ring is missed; one that rang already is kept.
            let rung = self.0.bell.notified();
            if let Some(snapshot) = self.0.newest().pop_first() {
                return snapshot;
            }
            rung.await;
        }
    }

    /// One that waits already.
    pub fn take(&mut self) -> Option<(u32, Bytes)> {
        self.0.newest().pop_first()
    }
}

impl Waiting {
    fn newest(&self) -> MutexGuard<'_, BTreeMap<u32, Bytes>> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use easel_api::images::SamplerKind;

    use super::*;

    fn request() -> PictureRequest {
        PictureRequest {
            prompt: "a cat".into(),
            negative_prompt: String::new(),
            seed: 7,
            steps: 20,
            guidance_scale: 1.0,
            size: "16x16".parse().unwrap(),
            sampler: SamplerKind::Ddim,
            edit: None,
            adapters: Vec::new(),
        }
    }

    #[test]
    fn a_snapshot_is_of_one_request_of_one_checkpoint() {
        let (asked, exported) = (request(), b"latents");
        let packed = pack("sha256:a", &asked, 5, exported);
        let begun = Begun { taken: 5, exported: exported.as_slice().into() };
        assert_eq!(unpack("sha256:a", &asked, &packed), Some(begun));
        assert_eq!(unpack("sha256:b", &asked, &packed), None);
        let worn = WornAdapter { name: "a".into(), digest: "sha256:c".into(), weight: 1.0 };
        for other in [
            PictureRequest { prompt: "a ca".into(), negative_prompt: "t".into(), ..request() },
            PictureRequest { seed: 8, ..request() },
            PictureRequest { steps: 21, ..request() },
            PictureRequest { guidance_scale: 1.5, ..request() },
            PictureRequest { size: "32x16".parse().unwrap(), ..request() },
            PictureRequest { sampler: SamplerKind::Euler, ..request() },
            PictureRequest { adapters: vec![worn], ..request() },
        ] {
            assert_eq!(unpack("sha256:a", &other, &packed), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_cut_or_at_its_end_is_no_snapshot() {
        let packed = pack("sha256:a", &request(), 5, b"");
        for length in 0..packed.len() {
            assert_eq!(unpack("sha256:a", &request(), &packed.slice(..length)), None);
        }
        let done = pack("sha256:a", &request(), 20, b"");
        assert_eq!(unpack("sha256:a", &request(), &done), None);
        assert_eq!(unpack("sha256:a", &request(), &vec![255; 40].into()), None);
    }

    #[test]
    fn snapshots_are_due_every_so_many_calls_and_not_when_the_picture_is_done() {
        let due = |every: u32| {
            let sender = snapshots(every).0;
            (1..=20).filter(|taken| sender.is_due(*taken, 20)).collect::<Vec<_>>()
        };
        assert_eq!(due(5), [5, 10, 15]);
        assert_eq!(due(7), [7, 14]);
        assert_eq!(due(1).len(), 19);
        assert_eq!(due(0), [0; 0]);
    }

    #[tokio::test]
    async fn of_each_picture_the_newest_waits_and_who_waits_is_woken() {
        let (sender, mut receiver) = snapshots(1);
        let waiting = tokio::spawn(async move { (receiver.next().await, receiver) });
        tokio::task::yield_now().await;
        sender.send(1, "a".into());
        let (first, mut receiver) = waiting.await.unwrap();
        assert_eq!(first, (1, "a".into()));
        for (picture, bytes) in [(1, "b"), (0, "c"), (1, "d")] {
            sender.send(picture, bytes.into());
        }
        assert_eq!([receiver.next().await, receiver.next().await], [(0, "c".into()), (1, "d".into())]);
        assert_eq!(receiver.take(), None);
    }
}
