//! How long a request takes: steps × step time. Measured where a pod has measured, a stated prior elsewhere.
//! Knows no queue; what waits before a request is the route's affair.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::{ModelId, PoolName};
use crate::snapshot::{Pool, Resident, Snapshot};

/// Step time of a model that nobody has run yet. Only the order of endpoints depends on it, and only until the first
/// step: an unmeasured endpoint should neither win nor lose against a measured one by much.
pub const STEP_PRIOR: Duration = Duration::from_millis(100);

/// Time to draw, without queueing.
pub fn drawing(steps: u64, step: Option<Duration>) -> Duration {
    let nanos = u128::from(steps).saturating_mul(step.unwrap_or(STEP_PRIOR).as_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Time for a request of the model's defaults on the slowest replica that serves it; `None` until one was measured.
pub fn slowest<'a>(steps: u32, residents: impl Iterator<Item = &'a Resident>) -> Option<Duration> {
    residents.filter(|resident| resident.ready).filter_map(|resident| resident.step).max().map(|step| step * steps)
}

/// What one step of a model took on each pool when it was measured last. Outlives the replicas that measured it, so that
/// a model which left a pool for its price is not tried there again and again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepTimes(BTreeMap<ModelId, Measured>);

#[derive(Clone, Debug, PartialEq)]
struct Measured {
    /// Another checkpoint is another model.
    digest: String,
    steps: BTreeMap<PoolName, Duration>,
}

impl StepTimes {
    /// With what the snapshot's replicas say, the slowest of a pool for all of it. Models and pools that are gone are
    /// forgotten, so this is at most models × pools long.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        self.0.retain(|id, measured| snapshot.models.get(id).is_some_and(|model| model.digest == measured.digest));
        for measured in self.0.values_mut() {
            measured.steps.retain(|pool, _| snapshot.pools.contains_key(pool));
        }
        for ((id, pool), step) in said(snapshot) {
            let digest = snapshot.models[id].digest.clone();
            let measured = self.0.entry(id.clone()).or_insert_with(|| Measured { digest, steps: BTreeMap::new() });
            measured.steps.insert(pool.clone(), step);
        }
    }

    /// On this pool: what was measured there, else what other pools' measurements come to at its speed, the least of
    /// them, because a model is refused only where all of them say so. `None` until anyone has measured.
    pub fn on(&self, id: &ModelId, name: &PoolName, pools: &BTreeMap<PoolName, Pool>) -> Option<Duration> {
        let steps = &self.0.get(id)?.steps;
        let speed = pools.get(name)?.relative_speed;
        let scaled =
            |(pool, step): (&PoolName, &Duration)| Some(pools.get(pool)?.relative_speed.scaled_to(speed, *step));
        steps.get(name).copied().or_else(|| steps.iter().filter_map(scaled).min())
    }
}

/// The slowest replica of each pool that has measured the model as it is wanted.
fn said(snapshot: &Snapshot) -> BTreeMap<(&ModelId, &PoolName), Duration> {
    let mut slowest = BTreeMap::new();
    for replica in snapshot.replicas.values() {
        for (id, resident) in &replica.residents {
            let wanted = snapshot.models.get(id).is_some_and(|model| model.digest == resident.digest);
            if let Some(step) = resident.step.filter(|_| wanted && snapshot.pools.contains_key(&replica.pool)) {
                let held = slowest.entry((id, &replica.pool)).or_insert(step);
                *held = step.max(*held);
            }
        }
    }
    slowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_grows_with_steps_and_never_overflows() {
        assert_eq!(drawing(20, Some(Duration::from_millis(50))), Duration::from_secs(1));
        assert_eq!(drawing(2, None), STEP_PRIOR * 2);
        assert!(drawing(u64::MAX, Some(Duration::MAX)) > Duration::from_secs(1 << 30));
    }

    #[test]
    fn the_slowest_ready_replica_counts() {
        let resident = |ready, ms| Resident { digest: String::new(), ready, step: Some(Duration::from_millis(ms)) };
        let residents = [resident(true, 10), resident(true, 30), resident(false, 90)];
        assert_eq!(slowest(2, residents.iter()), Some(Duration::from_millis(60)));
        assert_eq!(slowest(2, [].iter()), None);
    }

    #[test]
    fn a_pool_that_was_not_measured_is_as_fast_as_others_say_at_its_speed() {
        use crate::snapshot::{Capacity, Replica, ReplicaPhase, Tenancy};
        use crate::units::{Bytes, MicroUsdPerHour, Speed};
        let pool = |speed: &str| Pool {
            price: MicroUsdPerHour::new(1),
            capacity: Capacity::OnDemand,
            memory: Bytes(1),
            host_cache: Bytes(0),
            relative_speed: Speed::from_decimal(speed).unwrap(),
            overcommit: 1,
            warm_spares: 0,
            max_replicas: 1,
            max_cost: None,
            leaving: false,
        };
        let (id, a, b) = (ModelId::new("d/m"), PoolName::new("a"), PoolName::new("b"));
        let pools: BTreeMap<_, _> = [(a.clone(), pool("1")), (b.clone(), pool("2"))].into();
        let model = crate::snapshot::Model {
            digest: "sha256:0".into(),
            memory: Bytes(1),
            placement: crate::snapshot::Placement::Shared,
            pools: Vec::new(),
            replicas: 1,
            min_replicas: 1,
            max_replicas: None,
            max_per_image: None,
            max_per_hour: None,
            default_steps: 1,
            slos: Vec::new(),
            leaving: false,
        };
        let resident = Resident { digest: "sha256:0".into(), ready: true, step: Some(Duration::from_millis(40)) };
        let replica = Replica {
            pool: a.clone(),
            tenancy: Tenancy::Shared,
            phase: ReplicaPhase::Current,
            residents: [(id.clone(), resident)].into(),
        };
        let mut world = Snapshot { pools: pools.clone(), models: [(id.clone(), model)].into(), ..Snapshot::default() };
        let mut steps = StepTimes::default();
        steps.learn(&world);
        assert_eq!(steps.on(&id, &a, &pools), None);
        world.replicas.insert(crate::ReplicaId::new("r"), replica);
        steps.learn(&world);
        let found = |steps: &StepTimes| [&a, &b].map(|pool| steps.on(&id, pool, &pools).unwrap().as_millis());
        assert_eq!(found(&steps), [40, 20]);
        world.replicas.clear();
        steps.learn(&world);
        assert_eq!(found(&steps), [40, 20], "they outlive the replica");
        world.models.get_mut(&id).unwrap().digest = "sha256:1".into();
        steps.learn(&world);
        assert_eq!(steps, StepTimes::default(), "another checkpoint is another model");
    }
}
