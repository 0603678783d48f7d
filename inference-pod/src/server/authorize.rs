//! Who calls, and whether they may.
//! rustls has proved the certificate before; nothing here trusts one that it has not.

mod rules;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use easel_api::error::ApiError;
use easel_api::identity::Identity;

use super::Shared;
use super::respond::Refused;
pub(super) use rules::Action;
use rules::may;

/// Who is at the other end of a connection. `None` for a certificate of our CA that names nobody we know, and on ports
/// without TLS.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Option<Identity>);

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
            tracing::warn!(%method, path, why, "forbidden");
            Refused(ApiError::forbidden(format!("{why} ({method} {path})"))).into_response()
        }
    }
}
