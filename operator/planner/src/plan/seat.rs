//! One replica of a shared pool as the plan sees it: how much room is left and who sits there.
//! A seat may be in a replica that exists or in one that is yet to be made.

use std::collections::BTreeSet;

use crate::names::{ModelId, PoolName, ReplicaId};
use crate::units::Bytes;

#[derive(Clone, Debug)]
pub(super) struct Seats {
    pub(super) pool: PoolName,
    /// `None`: is yet to be made.
    pub(super) replica: Option<ReplicaId>,
    pub(super) free: Bytes,
    pub(super) models: BTreeSet<ModelId>,
    /// More sit here than the memory holds: they take turns on the device.
    pub(super) turns: bool,
    /// What those need together.
    pub(super) needed: Bytes,
}

/// Which replica of a pool takes one more model in turns: the least wins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crowd {
    /// Where it is already: a plan must not flap.
    elsewhere: bool,
    needed: Bytes,
    to_be_made: bool,
    replica: Option<ReplicaId>,
}

/// Which replica of a pool takes a model: the least wins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit {
    /// One that is empty is kept free as long as another has room: it may then go.
    empty: bool,
    /// The tightest, so that large models find room later.
    left: Bytes,
    /// One that exists before one that does not; then by name.
    to_be_made: bool,
    replica: Option<ReplicaId>,
}

impl Seats {
    /// How well the model fits here; `None` when it does not.
    pub(super) fn fit(&self, model: &ModelId, memory: Bytes) -> Option<Fit> {
        if self.models.contains(model) {
            return None;
        }
        let left = Bytes(self.free.0.checked_sub(memory.0)?);
        Some(Fit {
            empty: self.models.is_empty(),
            left,
            to_be_made: self.replica.is_none(),
            replica: self.replica.clone(),
        })
    }

    /// How well the model fits here in turns with the others; `None` when there are too many.
    pub(super) fn crowd(&self, model: &ModelId, memory: Bytes, most: Bytes, resident: bool) -> Option<Crowd> {
        let needed = Bytes(self.needed.0.saturating_add(memory.0));
        if self.models.contains(model) || needed > most {
            return None;
        }
        let to_be_made = self.replica.is_none();
        Some(Crowd { elsewhere: !resident, needed, to_be_made, replica: self.replica.clone() })
    }

    /// Takes the model in, in turns with who is here; the caller has asked [`Self::crowd`] before.
    pub(super) fn squeeze(&mut self, model: &ModelId, memory: Bytes) {
        self.turns = true;
        self.free = Bytes(0);
        self.needed = Bytes(self.needed.0.saturating_add(memory.0));
        self.models.insert(model.clone());
    }

    /// Takes the model in; the caller has asked [`Self::fit`] before.
    pub(super) fn take(&mut self, model: &ModelId, memory: Bytes) {
        debug_assert!(self.free >= memory, "a replica holds no more than its memory");
        self.free = Bytes(self.free.0.saturating_sub(memory.0));
        self.needed = Bytes(self.needed.0.saturating_add(memory.0));
        self.models.insert(model.clone());
    }
}
