//! What a leader knows of the past: step times that were measured, and replicas that demand has asked for.
//! Another leader learns it anew, and begins with the replicas that it finds; decides nothing itself.

use std::collections::BTreeMap;
use std::time::Instant;

use easel_planner::latency::StepTimes;
use easel_planner::scale::Scaling;
use easel_planner::time::{Moment, Span};
use easel_planner::{Memory, ModelId, Snapshot, scale};
use tracing::info;

#[derive(Debug)]
pub(super) struct Remembered {
    /// Where the planner's time begins.
    origin: Instant,
    steps: StepTimes,
    memory: Memory,
    replicas: BTreeMap<ModelId, u32>,
}

impl Remembered {
    pub(super) fn new() -> Self {
        let (steps, memory) = (StepTimes::default(), Memory::default());
        Self { origin: Instant::now(), steps, memory, replicas: BTreeMap::new() }
    }

    /// The snapshot with what is remembered, and with the replicas that every model shall have now.
    pub(super) fn scale(&mut self, mut snapshot: Snapshot) -> Snapshot {
        self.steps.learn(&snapshot);
        snapshot.steps = self.steps.clone();
        let now = Moment::ORIGIN + Span::from(self.origin.elapsed());
        let (snapshot, memory, scalings) = scale(snapshot, &self.memory, now);
        self.memory = memory;
        self.tell(&scalings);
        snapshot
    }

    fn tell(&mut self, scalings: &BTreeMap<ModelId, Scaling>) {
        for (id, scaling) in scalings {
            if self.replicas.get(id).is_some_and(|former| *former != scaling.replicas) {
                info!(model = %id, replicas = scaling.replicas, why = %scaling, "scaled");
            }
        }
        self.replicas = scalings.iter().map(|(id, scaling)| (id.clone(), scaling.replicas)).collect();
    }
}
