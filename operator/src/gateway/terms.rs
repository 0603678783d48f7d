//! On which terms one request is served: its class, deadline, priority and tenant, from its headers and its route.
//! Knows headers and terms; enforces no quota.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use easel_api::error::ApiError;
use easel_api::precedence::{PRIORITY_HEADER, Priority, TENANT_HEADER, Tenant};
use easel_planner::traffic::{self, RouteClass};
use tokio::time::Instant;

use crate::routing_table::Terms;

pub(super) const DEADLINE_HEADER: &str = "x-easel-deadline-ms";
const CLASS_HEADER: &str = "x-easel-class";
/// Of a name in a message.
const MAX_NAME: usize = 64;

/// What a request's headers ask for. Nobody proves them here: whoever stands before the gateway and knows its clients may
/// set them.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    arrived: Instant,
    /// The gateway's own bound.
    longest: Duration,
    deadline: Option<Duration>,
    class: Option<String>,
    priority: Option<Priority>,
    tenant: Tenant,
}

/// What becomes of the wishes.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) deadline: Instant,
    pub(super) precedence: Precedence,
}

/// A request's weight, for the pod's scheduler.
#[derive(Clone, Debug, Default)]
pub(super) struct Precedence {
    pub(super) priority: Priority,
    pub(super) tenant: Tenant,
}

impl Wishes {
    pub(super) fn of(headers: &HeaderMap, arrived: Instant, longest: Duration) -> Result<Self, ApiError> {
        let value = |name| headers.get(name).map(HeaderValue::as_bytes);
        let priority = value(PRIORITY_HEADER).map(|said| Priority::of_header(Some(said))).transpose()?;
        let class = value(CLASS_HEADER);
        Ok(Self {
            arrived,
            longest,
            deadline: headers.get(DEADLINE_HEADER).map(deadline).transpose()?,
            class: class.map(|said| String::from_utf8_lossy(said).chars().take(MAX_NAME).collect()),
            priority,
            tenant: Tenant::of_header(value(TENANT_HEADER))?,
        })
    }

    /// On these terms. A class that is not defined is refused: its client relies on a promise that nobody made.
    pub(super) fn settle(&self, terms: &Terms) -> Result<Settled, ApiError> {
        let class = self.class(terms)?;
        let promised = self.deadline.or(class.map(|class| class.latency));
        let priority = self.priority.or(class.map(|class| read(class.priority))).unwrap_or_default();
        let tenant = terms.tenants.iter().find(|tenant| tenant.name == self.tenant.as_str());
        // The least goes first, so the later of the two is the lower one.
        let priority = tenant.map_or(priority, |tenant| priority.max(read(tenant.max_priority)));
        Ok(Settled {
            deadline: self.arrived + promised.map_or(self.longest, |promised| promised.min(self.longest)),
            precedence: Precedence { priority, tenant: self.tenant.clone() },
        })
    }

    fn class<'a>(&self, terms: &'a Terms) -> Result<Option<&'a RouteClass>, ApiError> {
        let Terms { classes, default_class, tenants: _ } = terms;
        let Some(name) = self.class.as_ref().or(default_class.as_ref()) else { return Ok(None) };
        match classes.iter().find(|class| class.name == *name) {
            Some(class) => Ok(Some(class)),
            None => Err(unknown(name, classes)),
        }
    }
}

fn unknown(name: &str, classes: &[RouteClass]) -> ApiError {
    let known: Vec<&str> = classes.iter().map(|class| &*class.name).collect();
    let message = match known.as_slice() {
        [] => format!("{CLASS_HEADER} is '{name}', but the model has no classes; leave the header out"),
        known => format!("{CLASS_HEADER} is '{name}'; it can be {}", known.join(", ")),
    };
    ApiError::invalid(CLASS_HEADER, "unknown_class", message)
}

fn deadline(value: &HeaderValue) -> Result<Duration, ApiError> {
    let millis = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|millis| *millis > 0);
    let refused = || {
        let message = format!("{DEADLINE_HEADER} must be a whole number of milliseconds, at least 1");
        ApiError::invalid(DEADLINE_HEADER, "invalid_value", message)
    };
    millis.map(Duration::from_millis).ok_or_else(refused)
}

fn read(priority: traffic::Priority) -> Priority {
    match priority {
        traffic::Priority::High => Priority::High,
        traffic::Priority::Normal => Priority::Normal,
        traffic::Priority::Low => Priority::Low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, seconds: u64, priority: traffic::Priority) -> RouteClass {
        RouteClass {
            name: name.into(),
            latency: Duration::from_secs(seconds),
            percentile: 95,
            priority,
            max_per_image: None,
            overflow: traffic::Overflow::Queue,
        }
    }

    fn terms(default_class: Option<&str>) -> Terms {
        let tenant = traffic::Tenant {
            name: "web".into(),
            weight: 1,
            max_priority: traffic::Priority::Normal,
            quotas: Vec::new(),
        };
        Terms {
            classes: vec![class("live", 5, traffic::Priority::High), class("batch", 600, traffic::Priority::Low)],
            default_class: default_class.map(str::to_owned),
            tenants: vec![tenant],
        }
    }

    /// Seconds until the deadline, and the priority, of a request with these headers.
    fn settled(terms: &Terms, headers: &[(&'static str, &'static str)]) -> Result<(f64, Priority), ApiError> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let arrived = Instant::now();
        let Settled { deadline, precedence } = Wishes::of(&headers, arrived, Duration::from_mins(2))?.settle(terms)?;
        Ok(((deadline - arrived).as_secs_f64(), precedence.priority))
    }

    #[test]
    fn a_class_gives_deadline_and_priority_where_the_request_says_none() {
        let none = terms(None);
        assert_eq!(settled(&none, &[]).unwrap(), (120.0, Priority::Normal));
        assert_eq!(settled(&none, &[(CLASS_HEADER, "live")]).unwrap(), (5.0, Priority::High));
        assert_eq!(settled(&terms(Some("live")), &[]).unwrap(), (5.0, Priority::High));
        assert_eq!(settled(&none, &[(CLASS_HEADER, "batch")]).unwrap(), (120.0, Priority::Low), "the gateway's bound");
        let said = [(CLASS_HEADER, "live"), (DEADLINE_HEADER, "9000"), (PRIORITY_HEADER, "low")];
        assert_eq!(settled(&none, &said).unwrap(), (9.0, Priority::Low));
    }

    #[test]
    fn a_tenant_gets_no_higher_priority_than_its_own() {
        let asked = [(TENANT_HEADER, "web"), (PRIORITY_HEADER, "high")];
        assert_eq!(settled(&terms(None), &asked).unwrap().1, Priority::Normal);
        assert_eq!(settled(&terms(None), &[(TENANT_HEADER, "web"), (CLASS_HEADER, "batch")]).unwrap().1, Priority::Low);
        assert_eq!(
            settled(&terms(None), &[(TENANT_HEADER, "other"), (PRIORITY_HEADER, "high")]).unwrap().1,
            Priority::High
        );
    }

    #[test]
    fn a_class_that_nobody_has_defined_is_refused_with_those_that_are() {
        let error = settled(&terms(None), &[(CLASS_HEADER, "lvie")]).unwrap_err();
        assert_eq!(error.message, "x-easel-class is 'lvie'; it can be live, batch");
        let error = settled(&Terms::default(), &[(CLASS_HEADER, "live")]).unwrap_err();
        assert_eq!(error.message, "x-easel-class is 'live', but the model has no classes; leave the header out");
    }
}
