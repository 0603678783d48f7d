//! One checkpoint that the pod knows, wherever it is: what is known of it, and itself.
//! Knows tiers and bytes; does not know which model wants it, or what is to be done next.

use std::sync::Arc;
use std::time::Duration;

use easel_api::engine::{Checkpoint, LoadTimes, ModelId, Tier, TierBytes};
use easel_api::images::Task;
use easel_checkpoints::Held;

use crate::pipeline::Pipeline;
use crate::scheduler::Recent;

/// A checkpoint on the device. It leaves when no slot names it and no request draws with it.
pub(in crate::engine) struct Loaded<P> {
    pub(in crate::engine) pipeline: P,
    pub(in crate::engine) about: About,
}

/// A checkpoint that is not on the device.
pub(super) struct Resting<K> {
    pub(super) place: Place<K>,
    pub(super) about: About,
}

pub(super) enum Place<K> {
    /// Not ready anywhere.
    Nowhere,
    /// Its files are those of its digest.
    Disk,
    Host(K),
    /// The loader has it.
    Moving {
        from: Option<Tier>,
        to: Tier,
    },
}

pub(in crate::engine) struct About {
    pub(in crate::engine) model: ModelId,
    pub(in crate::engine) checkpoint: Checkpoint,
    /// Keeps it in the cache; `None` for a folder.
    pub(super) held: Option<Arc<Held>>,
    /// In memory, by the files until it was there.
    pub(super) bytes: Option<u64>,
    pub(super) disk_bytes: u64,
    pub(super) times: LoadTimes,
    /// Empty until it was on the device.
    pub(super) tasks: Vec<Task>,
    /// At the model's default size.
    pub(in crate::engine) steps: Recent,
    /// Later uses are greater.
    pub(super) used: u64,
    /// Later arrivals on the device are greater; 0: never.
    pub(super) risen: u64,
}

impl About {
    pub(super) fn new(model: ModelId, checkpoint: Checkpoint) -> Self {
        Self {
            model,
            checkpoint,
            held: None,
            bytes: None,
            disk_bytes: 0,
            times: LoadTimes::default(),
            tasks: Vec::new(),
            steps: Recent::default(),
            used: 0,
            risen: 0,
        }
    }

    /// What it can do; of one that was never on the device, what most can.
    pub(super) fn likely_tasks(&self) -> Vec<Task> {
        let most = || vec![Task::Generate, Task::ImageToImage, Task::Inpaint];
        if self.tasks.is_empty() { most() } else { self.tasks.clone() }
    }

    pub(super) fn took(&mut self, from: Option<Tier>, to: Tier, time: Duration) {
        let ms = Some(time.as_millis() as u64);
        match (from, to) {
            (_, Tier::Disk) if from.is_none() => self.times.to_disk = ms,
            (Some(Tier::Host), Tier::Device) => self.times.host_to_device = ms,
            (_, Tier::Device) => self.times.disk_to_device = ms,
            (None | Some(Tier::Disk), Tier::Host) => self.times.disk_to_host = ms,
            (_, Tier::Disk | Tier::Host) => {} // downwards
        }
    }

    /// The way to the device, as long as it took last.
    pub(super) fn way_up(&self, from: Option<Tier>) -> Duration {
        let ms = match from {
            Some(Tier::Device) => None,
            Some(Tier::Host) => self.times.host_to_device,
            Some(Tier::Disk) | None => self.times.disk_to_device,
        };
        Duration::from_millis(ms.unwrap_or_default())
    }

    pub(super) fn bytes_at(&self, at: Option<Tier>) -> TierBytes {
        let (disk, memory) = (if at.is_some() { self.disk_bytes } else { 0 }, self.bytes.unwrap_or_default());
        match at {
            None | Some(Tier::Disk) => TierBytes { disk, ..TierBytes::default() },
            Some(Tier::Host) => TierBytes { disk, host: memory, device: 0 },
            Some(Tier::Device) => TierBytes { disk, host: 0, device: memory },
        }
    }
}

impl<K> Place<K> {
    pub(super) fn at(&self) -> Option<Tier> {
        match self {
            Self::Nowhere => None,
            Self::Disk => Some(Tier::Disk),
            Self::Host(_) => Some(Tier::Host),
            Self::Moving { from, to: _ } => *from,
        }
    }

    pub(super) fn moving_to(&self) -> Option<Tier> {
        match self {
            Self::Moving { from: _, to } => Some(*to),
            Self::Nowhere | Self::Disk | Self::Host(_) => None,
        }
    }
}

impl<P: Pipeline> Loaded<P> {
    pub(super) fn bytes(&self) -> u64 {
        self.pipeline.memory_bytes()
    }
}
