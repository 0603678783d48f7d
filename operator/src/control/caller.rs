//! Who calls the control port, and whether they may. rustls has proved the certificate before.
//! Knows identities and actions; knows no handler.

use std::fmt;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;
use easel_api::error::ApiError;
use easel_api::identity::Identity;
use rustls::pki_types::CertificateDer;
use tracing::warn;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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

impl Caller {
    /// By the one URI of its certificate: one with two names is nobody's.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(identify(certificate))
    }
}

fn identify(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None, // of a foreign enum; other kinds of names are no identity
    });
    let uri = uris.next().filter(|_| uris.next().is_none())?;
    Identity::from_uri(uri)
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
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["pod.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_is_known_by_its_only_uri() {
        let (operator, gateway) = (Identity::Operator.uri(), Identity::Gateway.uri());
        assert_eq!(identify(&certificate(&[&operator])), Some(Identity::Operator));
        assert_eq!(identify(&certificate(&[&operator, &gateway])), None);
        assert_eq!(identify(&certificate(&[&operator, &operator])), None);
        assert_eq!(identify(&certificate(&["spiffe://other.example/operator"])), None);
        assert_eq!(identify(&certificate(&[])), None);
        assert_eq!(identify(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn demand_is_the_operators_to_read_and_nobody_elses() {
        let pods = Identity::Pods(Deployment { namespace: "easel-system".into(), name: "easel-pool-cpu".into() });
        assert!(may(&Identity::Operator, Action::ReadDemand).is_ok());
        assert!(may(&pods, Action::ReadDemand).is_err());
        let denied = may(&Identity::Gateway, Action::ReadDemand).unwrap_err();
        assert_eq!(denied.to_string(), "the identity 'gateway' may not read demand; only the operator may");
    }
}
