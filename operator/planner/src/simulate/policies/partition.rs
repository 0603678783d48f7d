//! Static partition: each replica serves one model for ever, as a Deployment for each model does.
//! Gives the slots out once, from all of the work that will come; knows no queue but its own replicas'.

use std::collections::BTreeMap;

use crate::demand::ModelIx;
use crate::simulate::World;
use crate::simulate::policies::immediate::{Pick, Queue};

/// Models in the order of their work get a replica each, the fastest first, until half of the replicas are given; so the
/// tail that no fleet has replicas for is refused. Every other replica goes to the model with the most work for each unit of
/// speed that it has. A request goes to its model's replica with the earliest finish. It is told the whole trace's shares
/// beforehand, which flatters it.
pub(super) fn static_partition() -> Pick {
    let (mut owners, mut there): (Vec<ModelIx>, usize) = (Vec::new(), 0);
    Box::new(move |world, task, queues| {
        // A fleet that grew or was hurt is shared out anew.
        if there != queues.len() {
            there = queues.len();
            owners = partition(world, queues);
        }
        let model = world.request(task).model;
        let own = queues.iter().filter(|queue| owners.get(queue.replica.0 as usize) == Some(&model));
        own.min_by_key(|queue| queue.free + queue.takes).map(|queue| queue.replica)
    })
}

/// Whose each replica is.
fn partition(world: &World<'_>, queues: &[Queue]) -> Vec<ModelIx> {
    let mut work: BTreeMap<ModelIx, f64> = BTreeMap::new();
    for request in &world.load.requests {
        *work.entry(request.model).or_default() += request.work.secs();
    }
    let mut models: Vec<(ModelIx, f64, f64)> = work.into_iter().map(|(model, work)| (model, work, 0.0)).collect();
    models.sort_by(|a, b| b.1.total_cmp(&a.1));
    models.truncate(queues.len().div_ceil(2));
    let mut fastest: Vec<&Queue> = queues.iter().collect();
    fastest.sort_by(|a, b| b.speed.total_cmp(&a.speed));
    let mut owners = vec![ModelIx(u32::MAX); world.machines.len()];
    for queue in fastest {
        // Whoever has nothing yet comes first, then the most work for the speed.
        let need = |(_, work, speed): &(ModelIx, f64, f64)| if *speed > 0.0 { work / speed } else { f64::MAX };
        let Some(neediest) = models.iter_mut().rev().max_by(|a, b| need(a).total_cmp(&need(b))) else { break };
        neediest.2 += queue.speed;
        owners[queue.replica.0 as usize] = neediest.0;
    }
    owners
}
