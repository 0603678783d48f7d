//! How the simulated fleet grows, shrinks and is hurt: orders, losses, reclaims, and replicas that turn slow.
//! Effects only; who is ordered or given up is a policy's.

use crate::demand::ModelIx;
use crate::dispatch::{ReplicaIx, Worth};
use crate::simulate::faults::{FaultKind, Target, hits};
use crate::simulate::machine::{Doing, Machine, Phase};
use crate::simulate::world::{Event, Happening, TaskIx, World, index};
use crate::simulate::{Load, Scenario};
use crate::time::{Moment, Span};

/// Each pool has its fewest replicas, and they hold the most popular models, one each, then the next ones.
pub(super) fn at_the_start(scenario: &Scenario, load: &Load) -> Vec<Machine> {
    let pools = scenario.pools.iter().enumerate();
    let mut machines: Vec<Machine> = pools
        .flat_map(|(at, pool)| (0..pool.min).map(move |_| Machine::order(at, pool, Moment::ORIGIN, Phase::Open)))
        .collect();
    let slots = scenario.pools.iter().map(|pool| pool.resident_slots).max().unwrap_or(0);
    let mut popular = 0;
    for slot in 0..slots {
        for machine in machines.iter_mut().filter(|machine| scenario.pools[machine.pool].resident_slots > slot) {
            let model = popular % load.models.len().max(1);
            let model = ModelIx(u32::try_from(model).unwrap_or(u32::MAX));
            popular += 1;
            machine.held.bring(model, &Worth::default());
        }
    }
    machines
}

impl World<'_> {
    pub(super) fn start(&mut self, pool: usize) {
        let spec = &self.scenario.pools[pool];
        let exist = self.machines.iter().filter(|machine| machine.pool == pool && machine.exists()).count();
        if exist >= spec.max as usize {
            return;
        }
        let ready = self.now + spec.start;
        let phase = Phase::Starting { ready };
        let free = self.machines.iter().position(|machine| machine.pool == pool && !machine.exists());
        let at = free.unwrap_or(self.machines.len());
        match free {
            Some(at) => self.machines[at].reborn(spec, self.now, phase),
            None => self.machines.push(Machine::order(pool, spec, self.now, phase)),
        }
        let life = self.machines[at].life;
        self.push(ready, Event::Ready { replica: index(at), life });
    }

    pub(super) fn hit(&mut self, target: Target, kind: FaultKind) -> Option<Happening> {
        let existing: Vec<usize> = (0..self.machines.len()).filter(|at| self.machines[*at].exists()).collect();
        let at = match target {
            Target::Existing(number) => *existing.get(number % existing.len().max(1))?,
            Target::Slot(slot) => *existing.get(slot)?,
        };
        let replica = index(at);
        let machine = &self.machines[at];
        let pool = &self.scenario.pools[machine.pool];
        if !hits(kind, pool.capacity) || matches!(machine.phase, Phase::Reclaimed { .. }) {
            return None;
        }
        self.faults_hit += 1;
        match kind {
            FaultKind::Loss => Some(self.lose(replica)),
            // Who has not started is only ordered again.
            FaultKind::Reclaim { .. } if !machine.is_open() => Some(self.lose(replica)),
            FaultKind::Reclaim { notice } => {
                let life = machine.life;
                let gone = self.now + notice;
                self.machines[at].phase = Phase::Reclaimed { at: gone };
                self.push(gone, Event::Reclaimed { replica, life });
                Some(Happening::Noticed(replica))
            }
            FaultKind::Slow { factor, lasts } => {
                let life = machine.life;
                let speed = pool.speed * factor;
                self.change_speed(replica, speed);
                self.push(self.now + lasts, Event::Quick { replica, life });
                None
            }
            FaultKind::TornDownload => {
                self.machines[at].torn = true;
                None
            }
        }
    }

    /// Gone at once. What it drew goes on elsewhere from the steps that were kept, if any were.
    pub(super) fn lose(&mut self, replica: ReplicaIx) -> Happening {
        let doing = self.machines[replica.0 as usize].doing;
        let now = self.now;
        self.machine_mut(replica).end(now);
        let task = match doing {
            Doing::Idle => None,
            Doing::Loading { task, .. } => task,
            Doing::Drawing { task, since } => {
                self.tasks[task].left = self.left_after_loss(replica, task, since);
                self.retried += 1;
                Some(task)
            }
        };
        for task in self.tasks.iter_mut().filter(|task| task.warm == Some(replica)) {
            task.warm = None;
        }
        Happening::Lost(replica, task)
    }

    fn left_after_loss(&self, replica: ReplicaIx, task: TaskIx, since: Moment) -> Span {
        let request = self.request(task);
        let Some(every) = self.rules.kept_every else { return request.work };
        let step = request.work.times(1.0 / f64::from(request.steps.max(1)));
        let before = self.tasks[task].left;
        let drawn = self.now.since(since).times(self.machines[replica.0 as usize].real_speed);
        // What was drawn is kept up to the last whole block of steps.
        before.less(drawn).whole(step.times(f64::from(every))).min(before)
    }

    /// What is drawn goes on at the new speed; steps that were drawn at the old one stay drawn.
    pub(super) fn change_speed(&mut self, replica: ReplicaIx, speed: f64) {
        let now = self.now;
        let machine = &mut self.machines[replica.0 as usize];
        let old = std::mem::replace(&mut machine.real_speed, speed);
        let Doing::Drawing { task, since } = machine.doing else { return };
        machine.books.drawing += now.since(since);
        machine.doing = Doing::Drawing { task, since: now };
        let left = self.tasks[task].left.less(now.since(since).times(old));
        self.tasks[task].left = left;
        self.expect(replica, left.at(speed));
    }

    /// Pods report what their steps take: who has drawn for a while is known as it is.
    pub(super) fn learn_speeds(&mut self) {
        for machine in &mut self.machines {
            if matches!(machine.doing, Doing::Drawing { since, .. } if since < self.now) {
                machine.speed = machine.real_speed;
            }
        }
    }
}
