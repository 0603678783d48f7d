//! Who calls, and whether they may. Reads the one URI of a verified certificate.
//! rustls has proved the certificate before; nothing here trusts one that it has not.

mod rules;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use easel_api::error::ApiError;
use easel_api::identity::Identity;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Shared;
use super::respond::Refused;
pub(super) use rules::Action;
use rules::may;

/// Who is at the other end of a connection. `None` for a certificate of our CA that names nobody we know, and on ports
/// without TLS.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Option<Identity>);

/// Exactly one URI SAN, and one that we know: a certificate with two names is nobody's.
pub(super) fn identify(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
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
            tracing::warn!(%method, path, why, "forbidden");
            Refused(ApiError::forbidden(format!("{why} ({method} {path})"))).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["pod.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_is_known_by_its_only_uri() {
        let (operator, gateway) = (Identity::Operator.uri(), Identity::Gateway.uri());
        assert_eq!(identify(&certificate(&[&gateway])), Some(Identity::Gateway));
        assert_eq!(identify(&certificate(&[&operator, &gateway])), None);
        assert_eq!(identify(&certificate(&[&gateway, &gateway])), None);
        assert_eq!(identify(&certificate(&["spiffe://other.example/operator"])), None);
        assert_eq!(identify(&certificate(&[])), None);
        assert_eq!(identify(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
