//! One simulated replica: what it holds, what it does, how fast it really is, and its books.
//! Knows no other replica and no policy.

use crate::dispatch::Held;
use crate::simulate::PoolSpec;
use crate::simulate::money::Books;
use crate::simulate::world::TaskIx;
use crate::time::{Moment, Span};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doing {
    Idle,
    Loading { since: Moment, until: Moment, task: Option<TaskIx> },
    Drawing { task: TaskIx, since: Moment },
}

/// A replica's life. Its place in the table is given again, within its pool, once it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Was ordered, is paid for, and can neither load nor draw.
    Starting {
        ready: Moment,
    },
    Open,
    /// A spot replica that has had its notice.
    Reclaimed {
        at: Moment,
    },
    Gone,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub pool: usize,
    /// As its steps are observed; another one than the pool's while it is slow.
    pub speed: f64,
    pub phase: Phase,
    pub doing: Doing,
    pub held: Held,
    pub books: Books,
    /// When it was ordered.
    pub since: Moment,
    /// Whom it has just loaded for.
    pub loaded_for: Option<TaskIx>,
    /// Of what it does; an event of an older one is void.
    pub(super) turn: u32,
    /// Of its life, for the same reason.
    pub(super) life: u32,
    /// The next load is torn and is fetched twice.
    pub(super) torn: bool,
    /// What its speed really is; the policy learns it from steps.
    pub(super) real_speed: f64,
}

impl Machine {
    pub(super) fn order(at: usize, pool: &PoolSpec, now: Moment, phase: Phase) -> Self {
        let mut machine = Self {
            pool: at,
            speed: pool.speed,
            phase: Phase::Gone,
            doing: Doing::Idle,
            held: Held::new(pool.resident_slots, pool.host_slots),
            books: Books::default(),
            since: now,
            loaded_for: None,
            turn: 0,
            life: 0,
            torn: false,
            real_speed: pool.speed,
        };
        machine.reborn(pool, now, phase);
        machine
    }

    /// The place is used again: an empty replica, on the same books.
    pub(super) fn reborn(&mut self, pool: &PoolSpec, now: Moment, phase: Phase) {
        self.speed = pool.speed;
        self.real_speed = pool.speed;
        self.phase = phase;
        self.doing = Doing::Idle;
        self.held = Held::new(pool.resident_slots, pool.host_slots);
        self.since = now;
        self.loaded_for = None;
        self.torn = false;
        self.turn += 1;
        self.life += 1;
        self.books.open(now);
    }

    /// Takes new work.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Is paid for.
    pub fn exists(&self) -> bool {
        self.phase != Phase::Gone
    }

    /// Ends what it does, and its life; whom it drew or loaded for.
    pub(super) fn end(&mut self, now: Moment) {
        self.settle(now);
        self.doing = Doing::Idle;
        self.turn += 1;
        self.life += 1;
        self.phase = Phase::Gone;
        self.books.close(now);
    }

    /// Books what it has done of what it does.
    pub(super) fn settle(&mut self, now: Moment) {
        match self.doing {
            Doing::Loading { since, .. } => self.books.loading += now.since(since),
            Doing::Drawing { since, .. } => self.books.drawing += now.since(since),
            Doing::Idle => {}
        }
    }

    /// How long a load takes here and now.
    pub(super) fn loading(&mut self, usual: Span) -> Span {
        if usual > Span::ZERO && std::mem::take(&mut self.torn) { usual + usual } else { usual }
    }
}
