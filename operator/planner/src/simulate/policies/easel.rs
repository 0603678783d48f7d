//! Easel itself: the board, the demand and the worth of checkpoints that the gateway and the leader use, driven by virtual time.

use std::collections::BTreeMap;

use crate::demand::Demand;
use crate::dispatch::{Board, Busy, Job, JobIx, Order, Replica, ReplicaIx, View, Worth, ahead};
use crate::simulate::policies::Policy;
use crate::simulate::policies::elastic::{Elastic, Settings, usable};
use crate::simulate::world::{Act, Doing, Happening, Machine, Rules, TaskIx, World, index};
use crate::time::Span;

#[derive(Debug, Default)]
pub struct Easel {
    board: Board,
    demand: Demand,
    /// Tasks on the board.
    jobs: BTreeMap<TaskIx, JobIx>,
    tasks: Vec<TaskIx>,
    elastic: Elastic,
}

impl Easel {
    /// With the autoscaler's settings, where they are not its own.
    pub fn with(settings: Settings) -> Self {
        Self { elastic: Elastic::new(settings), ..Self::default() }
    }
}

impl Policy for Easel {
    fn name(&self) -> &'static str {
        "easel"
    }

    /// A pod hands its latents over every few steps, so that its death costs at most those.
    fn rules(&self) -> Rules {
        Rules { kept_every: Some(5), tick: Span::from_secs(10.0) }
    }

    fn react(&mut self, world: &World<'_>, happening: Happening) -> Vec<Act> {
        match happening {
            Happening::Arrived(task) => self.arrive(world, task),
            Happening::Drawn(_, task) => {
                self.elastic.ended(world.now <= world.request(task).deadline);
                self.leave(task);
            }
            Happening::Loaded(replica) => self.loaded(world, replica),
            Happening::Lost(replica, task) => self.lost(world, replica, task),
            Happening::Ready(_) | Happening::Noticed(_) | Happening::Tick => {}
        }
        let mut acts = self.scale(world, happening);
        let replicas = self.replicas(world, &acts);
        let worth = Worth::at(world.now, &self.demand, &replicas, world.loads());
        let view = View { now: world.now, replicas: &replicas, loads: world.loads() };
        let orders = self.board.dispatch(&view, &worth);
        let fetch = ahead(&self.board, &view, &worth);
        acts.push(Act::Value(worth));
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
        self.elastic.arrived(request.work, world.now);
        let job = Job {
            model: request.model,
            work: request.work,
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

    /// Everybody who stood there looks for another place, and what was drawn goes on from the steps that were kept.
    fn lost(&mut self, world: &World<'_>, replica: ReplicaIx, task: Option<TaskIx>) {
        self.board.close(replica);
        let job = task.and_then(|task| Some((task, *self.jobs.get(&task)?)));
        if let Some((task, job)) = job.and_then(|(task, job)| Some((task, self.board.job_mut(job)?))) {
            job.work = world.tasks[task].left;
        }
        for job in self.jobs.values() {
            if let Some(job) = self.board.job_mut(*job).filter(|job| job.warm == Some(replica)) {
                job.warm = None;
            }
        }
    }

    /// Orders replicas and gives them up; who is reclaimed is emptied just before it goes.
    fn scale(&mut self, world: &World<'_>, happening: Happening) -> Vec<Act> {
        let placed: usize = (0..world.machines.len()).map(|at| self.board.line(index(at)).len()).sum();
        let placeless = if placed < self.board.len() { self.placeless(world) } else { 0.0 };
        let acts = self.elastic.scale(world, happening, &self.demand, placeless, self.board.len());
        for act in &acts {
            if let Act::End { replica } = act {
                self.empty(world, *replica);
            }
        }
        acts
    }

    fn empty(&mut self, world: &World<'_>, replica: ReplicaIx) {
        if let Doing::Drawing { task, .. } = world.machines[replica.0 as usize].doing {
            self.put_aside(world, replica, task);
        }
        self.lost(world, replica, None);
    }

    /// Work of those that stand in no line.
    fn placeless(&self, world: &World<'_>) -> f64 {
        let work = |jobs: &mut dyn Iterator<Item = JobIx>| {
            jobs.filter_map(|job| self.board.job(job)).map(|job| job.work.secs()).sum::<f64>()
        };
        let all = work(&mut self.jobs.values().copied());
        let placed = (0..world.machines.len()).flat_map(|at| self.board.line(index(at)).iter().copied());
        (all - work(&mut placed.into_iter())).max(0.0)
    }

    fn replicas(&mut self, world: &World<'_>, acts: &[Act]) -> Vec<Replica> {
        for machine in &world.machines {
            // A change of speed has moved the beginning of what is drawn.
            if let Doing::Drawing { task, .. } = machine.doing
                && let Some(job) = self.jobs.get(&task).and_then(|job| self.board.job_mut(*job))
            {
                job.work = world.tasks[task].left;
            }
        }
        let job = |task: TaskIx| self.jobs.get(&task).copied();
        let ends = |at: usize| acts.contains(&Act::End { replica: index(at) });
        let seen = |(at, machine): (usize, &Machine)| {
            if ends(at) || !machine.exists() {
                return Replica { speed: machine.speed, busy: Busy::Idle, held: machine.held, closed: true };
            }
            let busy = match machine.doing {
                Doing::Idle => Busy::Idle,
                Doing::Loading { until, task, .. } => Busy::Loading { until, job: task.and_then(job) },
                Doing::Drawing { task, since } => job(task).map_or(Busy::Idle, |job| Busy::Drawing { job, since }),
            };
            Replica { speed: machine.speed, busy, held: machine.held, closed: !usable(machine) }
        };
        world.machines.iter().enumerate().map(seen).collect()
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
                self.elastic.ended(false);
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
