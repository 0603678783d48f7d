//! Owns `make bench-plan`: how long one plan of the fleet takes, from nothing and with everybody seated.
//! Prints a table and writes `target/bench/plan.json`; judges nothing.

#![expect(clippy::disallowed_methods, reason = "a bench measures time and writes a file")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use easel_planner::snapshot::{Capacity, Model, Placement, Pool, Replica, ReplicaPhase, Resident, Tenancy};
use easel_planner::units::{Bytes, MicroUsdPerHour, Speed};
use easel_planner::{FleetPlan, ModelId, PoolName, ReplicaId, Snapshot, plan};

const ROUNDS: usize = 7;
const GIB: u64 = 1 << 30;

fn main() {
    let mut rows = Vec::new();
    println!("{:>7} {:>9} {:>12} {:>12}", "models", "replicas", "from nothing", "seated");
    for size in [100, 1000] {
        let empty = world(size);
        let seated = settled(&empty);
        let (first, again) = (median(&empty), median(&seated));
        println!("{size:>7} {:>9} {:>9.2} ms {:>9.2} ms", seated.replicas.len(), millis(first), millis(again));
        rows.push(format!(
            r#"{{"models": {size}, "replicas": {}, "from_nothing_ms": {:.3}, "seated_ms": {:.3}, "rounds": {ROUNDS}}}"#,
            seated.replicas.len(),
            millis(first),
            millis(again)
        ));
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    let text = format!("[{}]\n", rows.join(", "));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("plan.json"), text));
    if let Err(error) = written {
        eprintln!("failed to write {}: {error}", folder.display());
    }
}

/// As many models as replicas: each wants one that nobody else fits into.
fn world(size: u32) -> Snapshot {
    let pool = |at: u32| Pool {
        price: MicroUsdPerHour::new(u64::from(1 + at) * 1_000_000),
        capacity: if at.is_multiple_of(2) { Capacity::Spot } else { Capacity::OnDemand },
        memory: Bytes(80 * GIB),
        host_cache: Bytes(0),
        relative_speed: Speed::from_decimal("1").expect("a number"),
        overcommit: 1,
        warm_spares: 0,
        max_replicas: size / 4,
        max_cost: None,
        leaving: false,
    };
    let model = |at: u32| Model {
        digest: format!("sha256:{at}"),
        memory: Bytes((41 + u64::from(at % 30)) * GIB),
        placement: Placement::Shared,
        pools: Vec::new(),
        replicas: 1,
        min_replicas: 1,
        max_replicas: None,
        max_per_image: None,
        max_per_hour: None,
        default_steps: 30,
        slos: Vec::new(),
        leaving: false,
    };
    Snapshot {
        pools: (0..4).map(|at| (PoolName::new(format!("pool-{at}")), pool(at))).collect(),
        models: (0..size).map(|at| (ModelId::new(format!("team-{}/model-{at}", at % 20)), model(at))).collect(),
        ..Snapshot::default()
    }
}

/// The world that the plan asks for: pods come, and hold what they are told.
fn settled(world: &Snapshot) -> Snapshot {
    let mut world = world.clone();
    let FleetPlan { shared, .. } = plan(&world);
    for (pool, replicas) in shared {
        for at in 0..replicas {
            let (phase, tenancy) = (ReplicaPhase::Current, Tenancy::Shared);
            let replica = Replica { pool: pool.clone(), tenancy, phase, residents: BTreeMap::new() };
            world.replicas.insert(ReplicaId::new(format!("{pool}-{at:04}")), replica);
        }
    }
    for (id, held) in plan(&world).residency {
        let resident = |model: &ModelId| Resident {
            digest: world.models[model].digest.clone(),
            ready: true,
            step: Some(Duration::from_millis(40)),
        };
        let residents = held.iter().map(|model| (model.clone(), resident(model))).collect();
        if let Some(replica) = world.replicas.get_mut(&id) {
            replica.residents = residents;
        }
    }
    world
}

fn median(world: &Snapshot) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(plan(std::hint::black_box(world)));
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
