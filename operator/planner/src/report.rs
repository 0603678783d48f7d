//! Why the plan is as it is: one line a decision, the same sentence in status, event, log and golden test.
//! Renders text only; it takes no decision.

use std::fmt;

use crate::names::{ModelId, PoolName};
use crate::placement::Rejection;
use crate::units::MicroUsdPerHour;

/// What became of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every wanted replica has its place.
    Placed { seats: Vec<(PoolName, u32)> },
    /// Every wanted replica has its place, but not one that it has for itself: others are on the device in between.
    InTurns { seats: Vec<(PoolName, u32)>, rejections: Vec<(PoolName, Rejection)> },
    /// `min` is 0, and there is no `max` that demand could wake it to.
    Parked,
    /// `min` is 0, and nobody has asked for it lately: the first request wakes it.
    Asleep,
    /// Fewer than wanted, and what every pool that was asked says.
    Short { wanted: u32, seats: Vec<(PoolName, u32)>, rejections: Vec<(PoolName, Rejection)> },
    /// There is no pool at all.
    NoPool { wanted: u32 },
    /// Deletion was asked for.
    Leaving,
}

impl Outcome {
    /// Replicas that have their place.
    pub fn seated(&self) -> u32 {
        match self {
            Self::Placed { seats } | Self::InTurns { seats, .. } | Self::Short { seats, .. } => {
                seats.iter().map(|(_, n)| n).sum()
            }
            Self::Parked | Self::Asleep | Self::NoPool { .. } | Self::Leaving => 0,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placed { seats } => write!(f, "placed: {}", list(seats, |(pool, n)| format!("{n} on pool {pool}"))),
            Self::InTurns { seats, rejections } => {
                let seats = list(seats, |(pool, n)| format!("{n} on pool {pool}"));
                write!(f, "placed: {seats}; takes turns with others there, and waits for a load in between")?;
                rejections.iter().try_for_each(|(pool, rejection)| write!(f, "; pool {pool}: {rejection}"))
            }
            Self::Parked => {
                write!(
                    f,
                    "parked: replicas.min is 0; raise it to serve the model, or set replicas.max to wake it on demand"
                )
            }
            Self::Asleep => write!(f, "asleep: nobody asks for it; the first request wakes it"),
            Self::Short { wanted, seats, rejections } => {
                let seated: u32 = seats.iter().map(|(_, n)| n).sum();
                write!(f, "{seated} of {wanted} replicas placed; ")?;
                write!(f, "{}", list(rejections, |(pool, rejection)| format!("pool {pool}: {rejection}")))
            }
            Self::NoPool { wanted } => {
                write!(f, "0 of {wanted} replicas placed; there is no GpuPool; create one")
            }
            Self::Leaving => write!(f, "is being deleted"),
        }
    }
}

fn list<T>(items: &[T], render: impl Fn(&T) -> String) -> String {
    items.iter().map(render).collect::<Vec<_>>().join("; ")
}

/// All of it, in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub models: Vec<(ModelId, Outcome)>,
    /// Replicas and what they cost together.
    pub pools: Vec<(PoolName, u32, MicroUsdPerHour)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (pool, replicas, cost) in &self.pools {
            writeln!(f, "pool {pool}: {replicas} replicas, ${cost} an hour")?;
        }
        for (model, outcome) in &self.models {
            writeln!(f, "model {model}: {outcome}")?;
        }
        Ok(())
    }
}
