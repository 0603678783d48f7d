//! Which checkpoint goes to another tier next, and which models take nothing new meanwhile. Knows sizes, pins, demand and
//! who is busy; knows no pipeline, thread or clock, and moves nothing.
//!
//! # Rule
//!
//! One move at a time. Weights and what admitted pictures need stay within the device's limit, parked checkpoints within
//! the host's. A *pin* is the tier that the operator says: nothing falls below it. What is *busy*, because pictures on
//! their way draw with it, does not move.
//!
//! First come pins that are not kept yet, in the residency's order; then the models that requests wait for, the earliest
//! due first (the deadline, at most `patience` after arrival). Only the first of them may take room on the device, so
//! none is passed over for ever. For its room the least recently used models go that are neither pinned nor busy, to the
//! host if they fit there beside what was used later, else to disk; and none goes unless enough can go. Where that does
//! not suffice, busy models are *closed*, those that came up first before others: they take nothing new but what is due
//! before, and are idle when their pictures are drawn.
//!
//! So models take turns: a turn lasts until everything is drawn that waited when the model came up, which bounds thrash by
//! the number of requests, and a model waits at most for the turns of those whose requests are due before its own.
//! Classes order steps, not moves: what must not wait for a move is pinned to the device.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use easel_api::engine::Tier;

use crate::scheduler::PipelineId;

/// One checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) id: PipelineId,
    /// `None`: not ready anywhere.
    pub(super) at: Option<Tier>,
    pub(super) keep: Tier,
    /// In memory; `None` before it was there.
    pub(super) bytes: Option<u64>,
    /// The earliest of what waits for it.
    pub(super) due: Option<Instant>,
    pub(super) busy: bool,
    /// On its way between tiers: left alone.
    pub(super) moving: bool,
    /// Its files are at hand, and no pause after a refusal lasts.
    pub(super) may_rise: bool,
    /// Later uses are greater.
    pub(super) used: u64,
    /// Later arrivals on the device are greater.
    pub(super) risen: u64,
}

/// Of the device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Device {
    /// `None`: no limit.
    pub(super) limit: Option<u64>,
    /// By weights, also of what loads or leaves.
    pub(super) used: u64,
    /// Of what leaves as soon as its pictures are drawn.
    pub(super) leaving: u64,
    /// That admitted pictures can't do without.
    pub(super) reserved: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Host {
    /// 0: there is no host tier.
    pub(super) limit: u64,
    pub(super) used: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Move {
        id: PipelineId,
        to: Tier,
    },
    /// Pins leave no more than this, whatever else goes.
    Never {
        id: PipelineId,
        room_bytes: u64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) step: Option<Step>,
    /// Models that take nothing new but what is due before this instant.
    pub(super) closed: BTreeMap<PipelineId, Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct World<'a> {
    /// In the order of the residency.
    pub(super) standings: &'a [Standing],
    pub(super) device: Device,
    pub(super) host: Host,
}

impl World<'_> {
    pub(super) fn decide(&self) -> Decision {
        let mut closed = BTreeMap::new();
        let step = match self.room_for_pictures(&mut closed) {
            Some(step) => Some(step),
            None if closed.is_empty() => self.raise_to_device(&mut closed),
            None => None,
        };
        Decision { step: step.or_else(|| self.raise_to_host()).or_else(|| self.raise_to_disk()), closed }
    }

    /// Pictures were admitted that need the room of models which may go.
    fn room_for_pictures(&self, closed: &mut BTreeMap<PipelineId, Option<Instant>>) -> Option<Step> {
        let Device { limit, used, leaving, reserved } = self.device;
        if used.saturating_sub(leaving) + reserved <= limit? {
            return None;
        }
        let step = self.idle(None).into_iter().find_map(|one| self.lower(one, None));
        if step.is_none() {
            closed.extend(self.busy(None).map(|one| (one.id, None)));
        }
        step
    }

    fn raise_to_device(&self, closed: &mut BTreeMap<PipelineId, Option<Instant>>) -> Option<Step> {
        let below = |one: &&Standing| !one.moving && one.may_rise && one.at < Some(Tier::Device);
        let pinned = self.standings.iter().filter(below).find(|one| one.keep == Tier::Device);
        let awaited = || self.standings.iter().filter(below).filter(|one| one.due.is_some());
        let first = pinned.or_else(|| awaited().min_by_key(|one| (one.due, one.id)))?;
        let raise = Step::Move { id: first.id, to: Tier::Device };
        let (Some(limit), Some(need)) = (self.device.limit, first.bytes) else { return Some(raise) };
        let Device { limit: _, used, leaving, reserved } = self.device;
        let free = limit.saturating_sub(used + reserved);
        if need <= free {
            return Some(raise);
        }
        let idle = self.idle(Some(first.id));
        let busy: Vec<_> = self.busy(Some(first.id)).collect();
        let at_best = limit.saturating_sub(used.saturating_sub(leaving)) + sum(&idle) + sum(&busy);
        if need > at_best {
            // What moves now may be among those that can go once it is there.
            let settled = self.standings.iter().all(|one| !one.moving);
            return settled.then_some(Step::Never { id: first.id, room_bytes: at_best });
        }
        let mut room = free + leaving + sum(&idle);
        if need <= free + leaving {
            return None; // others are on their way out
        }
        if need <= room {
            return idle.into_iter().find_map(|one| self.lower(one, Some(first.id)));
        }
        for one in busy {
            if need > room {
                room += bytes(one);
                closed.insert(one.id, first.due);
            }
        }
        None
    }

    fn raise_to_host(&self) -> Option<Step> {
        let below = |one: &&Standing| one.keep == Tier::Host && one.at < Some(Tier::Host);
        let first = self.standings.iter().find(|one| below(one) && !one.moving && one.may_rise)?;
        let need = first.bytes.unwrap_or_default();
        match self.room_on_host(need, u64::MAX, None) {
            HostRoom::Free => Some(Step::Move { id: first.id, to: Tier::Host }),
            HostRoom::After(step) => Some(step),
            HostRoom::None { room_bytes } => {
                let settled = self.standings.iter().all(|one| !one.moving);
                settled.then_some(Step::Never { id: first.id, room_bytes })
            }
        }
    }

    fn raise_to_disk(&self) -> Option<Step> {
        let begins = |one: &&Standing| one.at.is_none() && one.keep == Tier::Disk && one.may_rise && !one.moving;
        self.standings.iter().find(begins).map(|one| Step::Move { id: one.id, to: Tier::Disk })
    }

    /// The next step on the way of a model down from the device, for one that is to come up.
    fn lower(&self, one: &Standing, beside: Option<PipelineId>) -> Option<Step> {
        let to_host = |room| match room {
            HostRoom::Free => Some(Step::Move { id: one.id, to: Tier::Host }),
            HostRoom::After(step) => Some(step),
            HostRoom::None { .. } => None,
        };
        let need = bytes(one);
        if one.keep == Tier::Disk {
            let step = to_host(self.room_on_host(need, one.used, beside));
            return step.or(Some(Step::Move { id: one.id, to: Tier::Disk }));
        }
        // It must have a place there: at worst that of the one which comes up, which then comes from the disk.
        let step = to_host(self.room_on_host(need, u64::MAX, beside));
        step.or_else(|| to_host(self.room_on_host(need, u64::MAX, None)))
    }

    /// Beside what is pinned there or was used since.
    fn room_on_host(&self, need: u64, used: u64, beside: Option<PipelineId>) -> HostRoom {
        let Host { limit, used: taken } = self.host;
        let may_go = |one: &&Standing| one.at == Some(Tier::Host) && one.keep == Tier::Disk && !one.moving;
        let older = self.standings.iter().filter(may_go).filter(|one| one.used < used && Some(one.id) != beside);
        let older: Vec<_> = older.collect();
        let room_bytes = limit.saturating_sub(taken) + sum(&older);
        let oldest = older.iter().min_by_key(|one| (one.used, one.id));
        match oldest {
            _ if limit == 0 || need > room_bytes => HostRoom::None { room_bytes },
            Some(oldest) if need > limit.saturating_sub(taken) => {
                HostRoom::After(Step::Move { id: oldest.id, to: Tier::Disk })
            }
            Some(_) | None => HostRoom::Free,
        }
    }

    /// What may leave the device now, the least recently used first.
    fn idle(&self, beside: Option<PipelineId>) -> Vec<&Standing> {
        let mut idle: Vec<_> = self.may_leave(beside).filter(|one| !one.busy).collect();
        idle.sort_by_key(|one| (one.used, one.id));
        idle
    }

    /// What may leave when its pictures are drawn, the one that came up first at first.
    fn busy(&self, beside: Option<PipelineId>) -> impl Iterator<Item = &Standing> {
        let mut busy: Vec<_> = self.may_leave(beside).filter(|one| one.busy).collect();
        busy.sort_by_key(|one| (one.risen, one.id));
        busy.into_iter()
    }

    fn may_leave(&self, beside: Option<PipelineId>) -> impl Iterator<Item = &Standing> {
        let on_device = move |one: &&Standing| one.at == Some(Tier::Device) && !one.moving && Some(one.id) != beside;
        self.standings
            .iter()
            .filter(on_device)
            .filter(move |one| one.keep < Tier::Device && self.lower(one, beside).is_some())
    }
}

enum HostRoom {
    Free,
    /// When this has been done.
    After(Step),
    None {
        room_bytes: u64,
    },
}

fn bytes(one: &Standing) -> u64 {
    one.bytes.unwrap_or_default()
}

fn sum(standings: &[&Standing]) -> u64 {
    standings.iter().map(|one| bytes(one)).sum()
}
