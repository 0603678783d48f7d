//! Which pool may take a model: filter with a reason, then score.
//! Knows one model and the pools' remaining room; which replica holds it is decided in `plan`.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use crate::latency;
use crate::names::PoolName;
use crate::snapshot::{Capacity, Model, Pool};
use crate::units::{Bytes, MicroUsd, MicroUsdPerHour};

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
    TooLittleMemory {
        needed: Bytes,
        offered: Bytes,
    },
    ReplicaLimit {
        limit: u32,
    },
    CostLimit {
        limit: MicroUsdPerHour,
        price: MicroUsdPerHour,
    },
    /// The model's own: one picture would cost more than it may.
    ImageCeiling {
        limit: MicroUsd,
        predicted: MicroUsd,
        drawing: Duration,
    },
    /// The model's own: another replica would cost more than all of them may.
    HourCeiling {
        limit: MicroUsdPerHour,
        spent: MicroUsdPerHour,
        price: MicroUsdPerHour,
    },
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
            Self::ImageCeiling { limit, predicted, drawing } => write!(
                f,
                "a picture would take {:.1} s and cost ${predicted}, above the model's cost.maxUsdPerImage of ${limit}; raise it, lower defaults.steps, or add a cheaper pool",
                drawing.as_secs_f64()
            ),
            Self::HourCeiling { limit, spent, price } => write!(
                f,
                "another replica for ${price} an hour beside ${spent} would exceed the model's cost.maxUsdPerHour of ${limit}; raise it, or lower replicas.min"
            ),
        }
    }
}

/// What does not depend on how full the pool is.
/// `step`: what a step of the model takes there, if anyone knows; nobody is refused on a guess.
pub(crate) fn suits(model: &Model, pool: &Pool, step: Option<Duration>) -> Result<(), Rejection> {
    if pool.leaving {
        return Err(Rejection::PoolLeaving);
    }
    if model.memory > pool.memory {
        return Err(Rejection::TooLittleMemory { needed: model.memory, offered: pool.memory });
    }
    let (Some(limit), Some(step)) = (model.max_per_image, step) else { return Ok(()) };
    let drawing = latency::drawing(u64::from(model.default_steps), Some(step));
    let predicted = pool.price.cost(drawing);
    if predicted > limit { Err(Rejection::ImageCeiling { limit, predicted, drawing }) } else { Ok(()) }
}

/// Whether a model whose replicas cost so much may have one more in this pool.
pub(crate) fn may_afford(model: &Model, pool: &Pool, spent: MicroUsdPerHour) -> Result<(), Rejection> {
    match model.max_per_hour {
        Some(limit) if spent + pool.price > limit => Err(Rejection::HourCeiling { limit, spent, price: pool.price }),
        _ => Ok(()),
    }
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

/// Replicas beside those in use that the pool shall keep: as many as it asks for, and its limits leave room for.
pub(crate) fn spares(pool: &Pool, used: u32) -> u32 {
    (0..pool.warm_spares).take_while(|spare| may_grow(pool, used.saturating_add(*spare)).is_ok()).count() as u32
}

pub(crate) fn score(preference: usize, name: &PoolName, pool: &Pool) -> Score {
    let Pool {
        price,
        capacity,
        memory,
        host_cache: _,
        // A prior of the latency model; how fast a pool is shows in what is measured.
        relative_speed: _,
        overcommit: _,
        warm_spares: _,
        max_replicas: _,
        max_cost: _,
        leaving: _,
    } = *pool;
    Score { preference, price, capacity, memory: Reverse(memory), name: name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Placement;
    use crate::units::Speed;

    fn pool(price: &str, capacity: Capacity) -> Pool {
        Pool {
            price: MicroUsdPerHour::from_dollars(price).unwrap(),
            capacity,
            memory: Bytes(1 << 30),
            host_cache: Bytes(0),
            relative_speed: Speed::ONE,
            overcommit: 1,
            warm_spares: 0,
            max_replicas: 2,
            max_cost: None,
            leaving: false,
        }
    }

    fn model(max_per_image: Option<&str>, max_per_hour: Option<&str>) -> Model {
        Model {
            digest: "sha256:0".into(),
            memory: Bytes(1),
            placement: Placement::Shared,
            pools: Vec::new(),
            replicas: 1,
            min_replicas: 1,
            max_replicas: None,
            max_per_image: max_per_image.map(|text| MicroUsd::from_dollars(text).unwrap()),
            max_per_hour: max_per_hour.map(|text| MicroUsdPerHour::from_dollars(text).unwrap()),
            default_steps: 30,
            slos: Vec::new(),
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

    #[test]
    fn a_pool_where_a_picture_costs_too_much_is_refused_once_its_time_is_known() {
        let (dear, model) = (pool("3.60", Capacity::OnDemand), model(Some("0.002"), None));
        let step = |ms| Some(Duration::from_millis(ms));
        assert_eq!(suits(&model, &dear, None), Ok(()));
        assert_eq!(suits(&model, &dear, step(66)), Ok(()));
        let refused = suits(&model, &dear, step(100)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a picture would take 3.0 s and cost $0.003, above the model's cost.maxUsdPerImage of $0.002; raise it, \
             lower defaults.steps, or add a cheaper pool"
        );
        assert_eq!(suits(&model, &pool("1", Capacity::Spot), step(100)), Ok(()));
    }

    #[test]
    fn a_model_has_replicas_up_to_its_dollars_an_hour() {
        let (pool, model) = (pool("2", Capacity::OnDemand), model(None, Some("5")));
        let spent = |dollars: &str| MicroUsdPerHour::from_dollars(dollars).unwrap();
        assert_eq!(may_afford(&model, &pool, spent("3")), Ok(()));
        assert_eq!(
            may_afford(&model, &pool, spent("4")).unwrap_err().to_string(),
            "another replica for $2.00 an hour beside $4.00 would exceed the model's cost.maxUsdPerHour of $5.00; raise \
             it, or lower replicas.min"
        );
    }

    #[test]
    fn spares_are_kept_within_the_limits_only() {
        let pool = Pool { warm_spares: 5, max_replicas: 4, ..pool("1", Capacity::OnDemand) };
        assert_eq!([0, 3, 4, 9].map(|used| spares(&pool, used)), [4, 1, 0, 0]);
        let bounded = Pool { max_cost: Some(MicroUsdPerHour::from_dollars("2.50").unwrap()), ..pool };
        assert_eq!(spares(&bounded, 1), 1);
    }
}
