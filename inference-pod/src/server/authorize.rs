//! Who calls, and whether they may. Reads the one URI of a verified client certificate.
//! rustls has proved the certificate before; nothing here trusts one that it has not.

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

/// The caller of this connection; `None` for a certificate of our CA that names nobody we know.
#[derive(Clone, Copy, Debug)]
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

/// This route is for these callers; anyone else gets 403.
pub(super) fn allow(route: MethodRouter<Shared>, who: &'static [Identity]) -> MethodRouter<Shared> {
    route.route_layer(from_fn_with_state(who, check))
}

async fn check(State(who): State<&'static [Identity]>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().and_then(|caller| caller.0);
    match caller {
        Some(identity) if who.contains(&identity) => next.run(request).await,
        Some(identity) => refuse(&request, &format!("the identity '{identity}'")),
        None => refuse(&request, "a certificate without an identity of easel"),
    }
}

fn refuse(request: &Request, who: &str) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    tracing::warn!(%method, path, who, "forbidden");
    Refused(ApiError::forbidden(format!("{who} may not {method} {path}"))).into_response()
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
        assert_eq!(identify(&certificate(&[gateway])), Some(Identity::Gateway));
        assert_eq!(identify(&certificate(&[operator, gateway])), None);
        assert_eq!(identify(&certificate(&["spiffe://other.example/operator"])), None);
        assert_eq!(identify(&certificate(&[])), None);
        assert_eq!(identify(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
