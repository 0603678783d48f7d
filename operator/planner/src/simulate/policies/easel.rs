//! Easel itself: the board, the demand and the worth of checkpoints that the gateway and the leader use, driven by virtual time.

use std::collections::BTreeMap;

use crate::demand::Demand;
use crate::dispatch::{Board, Busy, Job, JobIx, Order, Replica, ReplicaIx, View, Worth, ahead};
use crate::simulate::policies::Policy;
use crate::simulate::world::{Act, Doing, Happening, Machine, TaskIx, World};

#[derive(Debug, Default)]
pub struct Easel {
    board: Board,
    demand: Demand,
    /// Tasks on the board.
    jobs: BTreeMap<TaskIx, JobIx>,
    tasks: Vec<TaskIx>,
}

impl Policy for Easel {
    fn name(&self) -> &'static str {
        "easel"
    }

    fn react(&mut self, world: &World<'_>, happening: Happening) -> Vec<Act> {
        match happening {
            Happening::Arrived(task) => self.arrive(world, task),
            Happening::Drawn(_, task) => self.leave(task),
            Happening::Loaded(replica) => self.loaded(world, replica),
        }
        let replicas = self.replicas(world);
        let worth = Worth::at(world.now, &self.demand, &replicas, world.loads());
        let view = View { now: world.now, replicas: &replicas, demand: &self.demand, loads: world.loads() };
        let orders = self.board.dispatch(&view, &worth);
        let fetch = ahead(&self.board, &view, &worth);
        let mut acts = vec![Act::Value(worth)];
        for order in orders {
            acts.push(self.follow(world, order));
        }
        acts.extend(fetch.map(|ahead| Act::Fetch { replica: ahead.replica, model: ahead.model }));
        acts
    }
}

impl Easel {
    fn arrive(&mut self, world: &World<'_>, task: TaskIx) {
        let request = world.request(task);
        self.demand.note(request.model, request.work, world.now);
        let job = Job {
            model: request.model,
            work: request.work,
            step: request.work.times(1.0 / f64::from(request.steps.max(1))),
            adapters: request.adapters,
            deadline: request.deadline,
            warm: None,
        };
        let ix = self.board.add(job);
        self.jobs.insert(task, ix);
        let at = ix.0 as usize;
        if self.tasks.len() <= at {
            self.tasks.resize(at + 1, usize::MAX);
        }
        self.tasks[at] = task;
    }

    fn leave(&mut self, task: TaskIx) {
        if let Some(job) = self.jobs.remove(&task) {
            self.board.remove(job);
        }
    }

    fn loaded(&mut self, world: &World<'_>, replica: ReplicaIx) {
        let task = world.machines[replica.0 as usize].loaded_for;
        if let Some(job) = task.and_then(|task| self.jobs.get(&task)).and_then(|job| self.board.job_mut(*job)) {
            job.warm = Some(replica);
        }
    }

    fn replicas(&self, world: &World<'_>) -> Vec<Replica> {
        let job = |task: TaskIx| self.jobs.get(&task).copied();
        let seen = |machine: &Machine| {
            let busy = match machine.doing {
                Doing::Idle => Busy::Idle,
                Doing::Loading { until, task, .. } => Busy::Loading { until, job: task.and_then(job) },
                Doing::Drawing { task, since } => job(task).map_or(Busy::Idle, |job| Busy::Drawing { job, since }),
            };
            Replica { speed: machine.speed, busy, held: machine.held, closed: false }
        };
        world.machines.iter().map(seen).collect()
    }

    fn follow(&mut self, world: &World<'_>, order: Order) -> Act {
        match order {
            Order::Turn { replica, job } => {
                if let Doing::Drawing { task, .. } = world.machines[replica.0 as usize].doing {
                    self.put_aside(world, replica, task);
                }
                Act::Turn { replica, task: self.tasks[job.0 as usize] }
            }
            Order::Shed { job } => {
                let task = self.tasks[job.0 as usize];
                self.leave(task);
                Act::Refuse { task }
            }
        }
    }

    /// The board learns what the job has left once the world has put it aside.
    fn put_aside(&mut self, world: &World<'_>, replica: ReplicaIx, task: TaskIx) {
        let left = world.left_if_put_aside(replica);
        if let Some(job) = self.jobs.get(&task).and_then(|job| self.board.job_mut(*job)) {
            job.work = left;
        }
    }
}
