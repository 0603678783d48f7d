//! Who calls the control port, and whether they may. rustls has proved the certificate before.
//! Knows identities and actions; knows no handler.

use std::fmt;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;
use easel_api::error::ApiError;
use easel_api::identity::Identity;
use tracing::warn;

use super::Shared;
use crate::gateway::render;

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Hear what clients ask this gateway for.
    ReadDemand,
}

/// Who is at the other end of a connection; `None` for a certificate of our authority that names nobody we know.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Option<Identity>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity '{caller}' may not {action}; only the operator may")]
struct Denied {
    caller: Identity,
    action: Action,
}

fn may(caller: &Identity, action: Action) -> Result<(), Denied> {
    match (action, caller) {
        (Action::ReadDemand, Identity::Operator) => Ok(()),
        (Action::ReadDemand, Identity::Gateway | Identity::Pods(_)) => Err(Denied { caller: caller.clone(), action }),
    }
}

/// This route does that; whoever may not do it gets 403.
pub(super) fn guard(route: MethodRouter<Shared>, action: Action) -> MethodRouter<Shared> {
    route.route_layer(from_fn_with_state(action, check))
}

async fn check(State(action): State<Action>, request: Request, next: Next) -> Response {
    let verdict = match request.extensions().get::<Caller>().and_then(|caller| caller.0.as_ref()) {
        Some(caller) => may(caller, action).map_err(|denied| denied.to_string()),
        None => Err("a certificate without an identity of easel may do nothing".to_owned()),
    };
    match verdict {
        Ok(()) => next.run(request).await,
        Err(why) => {
            let (method, path) = (request.method(), request.uri().path());
            warn!(%method, path, why, "forbidden");
            render::error(&ApiError::forbidden(format!("{why} ({method} {path})")))
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadDemand => "read demand",
        })
    }
}

#[cfg(test)]
mod tests {
    use easel_api::identity::Deployment;

    use super::*;

    #[test]
    fn demand_is_the_operators_to_read_and_nobody_elses() {
        let pods = Identity::Pods(Deployment { namespace: "easel-system".into(), name: "easel-pool-cpu".into() });
        assert!(may(&Identity::Operator, Action::ReadDemand).is_ok());
        assert!(may(&pods, Action::ReadDemand).is_err());
        let denied = may(&Identity::Gateway, Action::ReadDemand).unwrap_err();
        assert_eq!(denied.to_string(), "the identity 'gateway' may not read demand; only the operator may");
    }
}
