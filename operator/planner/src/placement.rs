//! Which pool may take a model: filter with a reason, then score.
//! Knows one model and the pools' remaining room; which replica holds it is decided in `plan`.

use std::cmp::Reverse;
use std::fmt;

use crate::names::PoolName;
use crate::snapshot::{Capacity, Model, Pool};
use crate::units::{Bytes, MicroUsdPerHour};

/// How good a pool is for a model: the least wins, and the fields are compared from the top down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Position in the model's own list.
    preference: usize,
    price: MicroUsdPerHour,
    /// At the same price, the one that is not taken away at short notice.
    capacity: Capacity,
    /// Then the larger, so that small ones are not broken up.
    memory: Reverse<Bytes>,
    /// Makes equal pools come out in one order.
    pub(crate) name: PoolName,
}

/// Why a pool can't take a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    UnknownPool,
    PoolLeaving,
    TooLittleMemory { needed: Bytes, offered: Bytes },
    ReplicaLimit { limit: u32 },
    CostLimit { limit: MicroUsdPerHour, price: MicroUsdPerHour },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPool => write!(f, "there is no GpuPool of this name; create it or mend spec.pools"),
            Self::PoolLeaving => write!(f, "the pool is being deleted; name another in spec.pools"),
            Self::TooLittleMemory { needed, offered } => {
                write!(f, "needs {needed} and a replica offers {offered}; use a pool with more memory")
            }
            Self::ReplicaLimit { limit } => {
                write!(f, "all of its {limit} replicas are taken; raise the pool's limits.replicas")
            }
            Self::CostLimit { limit, price } => write!(
                f,
                "another replica for ${price} an hour would exceed ${limit} an hour; raise the pool's limits.usdPerHour"
            ),
        }
    }
}

/// What does not depend on how full the pool is.
pub(crate) fn suits(model: &Model, pool: &Pool) -> Result<(), Rejection> {
    if pool.leaving {
        return Err(Rejection::PoolLeaving);
    }
    if model.memory > pool.memory {
        return Err(Rejection::TooLittleMemory { needed: model.memory, offered: pool.memory });
    }
    Ok(())
}

/// Whether a pool with so many replicas may have one more.
pub(crate) fn may_grow(pool: &Pool, replicas: u32) -> Result<(), Rejection> {
    if replicas >= pool.max_replicas {
        return Err(Rejection::ReplicaLimit { limit: pool.max_replicas });
    }
    match pool.max_cost {
        Some(limit) if pool.price.times(replicas + 1) > limit => Err(Rejection::CostLimit { limit, price: pool.price }),
        _ => Ok(()),
    }
}

pub(crate) fn score(preference: usize, name: &PoolName, pool: &Pool) -> Score {
    let Pool { price, capacity, memory, max_replicas: _, max_cost: _, leaving: _ } = *pool;
    Score { preference, price, capacity, memory: Reverse(memory), name: name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(price: &str, capacity: Capacity) -> Pool {
        Pool {
            price: MicroUsdPerHour::from_dollars(price).unwrap(),
            capacity,
            memory: Bytes(1 << 30),
            max_replicas: 2,
            max_cost: None,
            leaving: false,
        }
    }

    #[test]
    fn the_users_order_comes_before_the_price_and_the_price_before_everything_else() {
        let (a, b) = (PoolName::new("a"), PoolName::new("b"));
        let (cheap, dear) = (pool("1", Capacity::Spot), pool("2", Capacity::OnDemand));
        assert!(score(0, &b, &dear) < score(1, &a, &cheap));
        assert!(score(0, &b, &cheap) < score(0, &a, &dear));
        assert!(score(0, &b, &pool("1", Capacity::OnDemand)) < score(0, &a, &cheap));
    }

    #[test]
    fn a_pool_grows_to_its_limits_and_not_beyond() {
        let mut pool = pool("1", Capacity::OnDemand);
        assert_eq!(may_grow(&pool, 1), Ok(()));
        assert_eq!(may_grow(&pool, 2), Err(Rejection::ReplicaLimit { limit: 2 }));
        pool.max_cost = Some(MicroUsdPerHour::from_dollars("1.50").unwrap());
        assert!(matches!(may_grow(&pool, 1), Err(Rejection::CostLimit { .. })));
    }
}
