//! What is said of the residents: models, tiers, bytes, times.
//! Reads everything, changes nothing.

use std::time::Duration;

use easel_api::engine::{
    HostMemory, LoadTimes, MAX_STEP_TIMES, MemoryReport, ModelId, ModelReport, ModelState, StepTime, Tier, TierBytes,
};

use super::slot::Slot;
use super::{About, Residents};
use crate::engine::awaiting::Awaiting;
use crate::pipeline::Pipeline;
use crate::scheduler::{PipelineId, Shape, StepTimes};

impl<P: Pipeline> Residents<P> {
    /// Beside what pictures on their way can't do without.
    pub(in crate::engine) fn memory(&self, reserved_bytes: u64) -> MemoryReport {
        let used_bytes = self.used_bytes();
        let taken = used_bytes + self.given_bytes(Tier::Device) + reserved_bytes;
        let (total, used) = (self.host_bytes, self.host_used_bytes());
        let host = HostMemory { total_bytes: total, used_bytes: used, free_bytes: total.saturating_sub(used) };
        let free_bytes = self.limit_bytes.saturating_sub(taken);
        MemoryReport { total_bytes: self.limit_bytes, used_bytes, free_bytes, host }
    }

    /// In all tiers.
    pub(in crate::engine) fn bytes(&self) -> TierBytes {
        let ids = self.loaded.keys().chain(self.resting.keys());
        let bytes = ids.filter_map(|id| Some(self.about(*id)?.bytes_at(self.at(*id))));
        bytes.fold(TierBytes::default(), |sum, TierBytes { disk, host, device }| TierBytes {
            disk: sum.disk + disk,
            host: sum.host + host,
            device: sum.device + device,
        })
    }

    /// During a swap a model has two reports: the former checkpoint, which serves, and then the desired one.
    pub(in crate::engine) fn reports(&self, times: &StepTimes, awaiting: &Awaiting) -> Vec<ModelReport> {
        let mut reports = Vec::new();
        for slot in &self.slots {
            if let Some(former) = slot.serving.filter(|id| *id != slot.id) {
                reports.extend(self.report(slot, former, ModelState::Ready, times, awaiting));
            }
            reports.extend(self.report(slot, slot.id, slot.state.clone(), times, awaiting));
        }
        reports
    }

    fn report(
        &self,
        slot: &Slot,
        id: PipelineId,
        state: ModelState,
        times: &StepTimes,
        awaiting: &Awaiting,
    ) -> Option<ModelReport> {
        let about = self.about(id)?;
        let at = self.at(id);
        let LoadTimes { to_disk: _, disk_to_host: _, disk_to_device, host_to_device } = about.times;
        let answers = slot.serving == Some(id);
        Some(ModelReport {
            id: slot.desired.id.clone(),
            digest: about.checkpoint.digest.clone(),
            state,
            step_ms: about.steps.median().map(millis),
            load_ms: host_to_device.or(disk_to_device),
            tier: at.filter(|_| answers),
            moving_to: self.resting.get(&id).and_then(|resting| resting.place.moving_to()).filter(|_| answers),
            bytes: about.bytes_at(at),
            load_times: about.times,
            awaited: if answers { awaiting.of(&slot.desired.id).0 } else { 0 },
            tasks: about.tasks.clone(),
            step_times: step_times(id, times),
            adapters: Vec::new(),
        })
    }

    /// Until what waits for this model is drawn, from now on, by what its way and its steps took last.
    pub(in crate::engine) fn awaited_time(&self, model: &ModelId, calls: u64) -> Duration {
        let slot = self.slots.iter().find(|slot| slot.desired.id == *model);
        let Some(id) = slot.and_then(|slot| slot.serving) else { return Duration::ZERO };
        let Some(About { steps, .. }) = self.about(id) else { return Duration::ZERO };
        let way = self.about(id).map(|about| about.way_up(self.at(id))).unwrap_or_default();
        way + steps.median().unwrap_or_default().mul_f64(calls as f64)
    }
}

fn step_times(pipeline: PipelineId, times: &StepTimes) -> Vec<StepTime> {
    let of_it = times.latest().into_iter().filter(|(shape, _)| shape.pipeline == pipeline);
    let step_time = |(shape, time): (Shape, Duration)| StepTime {
        height: shape.key.height,
        width: shape.key.width,
        rows: shape.key.rows,
        batch: shape.jobs as u32,
        ms: millis(time),
    };
    of_it.take(MAX_STEP_TIMES).map(step_time).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
