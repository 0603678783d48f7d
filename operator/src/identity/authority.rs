//! Signs: the authority's own certificate, and one for each identity. ECDSA P-256, each key made here and never read
//! back. Knows no Kubernetes.

use std::fmt;

use easel_api::identity::{Deployment, Identity, pod_domain};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::renewal::{AUTHORITY_LIFETIME, BACKDATED, LEAF_LIFETIME};
use crate::names::OPERATOR;

/// A certificate and its key, PEM. Prints no key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub cert_pem: String,
    pub key_pem: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("failed to make a certificate")]
    Rcgen(#[from] rcgen::Error),
    #[error("failed to read back what was made")]
    Unreadable,
    #[error("failed to express {0} as a certificate's time")]
    Time(Timestamp),
}

/// What signs.
pub struct Authority {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The subject alternative names of an identity whose holders run in this namespace, as they stand in its certificate. Pods
/// and gateways are called by the host name and call by the URI; the operator is called by nobody.
pub(super) fn names(identity: &Identity, namespace: &str) -> Vec<String> {
    let uri = identity.uri().into_owned();
    match identity {
        Identity::Operator => vec![uri],
        Identity::Gateway => vec![format!("*.{}", pod_domain(OPERATOR, namespace)), uri],
        Identity::Pods(Deployment { namespace, name }) => vec![format!("*.{}", pod_domain(name, namespace)), uri],
    }
}

impl Authority {
    /// A new one, with its key.
    pub fn make(now: Timestamp) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = params("easel", now, AUTHORITY_LIFETIME)?;
        // Signs leaves only: no certificate below it can sign another.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Pair { cert_pem: params.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
    }

    pub fn read(pair: &Pair) -> Result<Self, AuthorityError> {
        let Pair { cert_pem, key_pem } = pair;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { cert_pem: cert_pem.clone(), issuer })
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn sign(&self, identity: &Identity, namespace: &str, now: Timestamp) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate()?;
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (common, usages) = match identity {
            Identity::Operator => ("easel operator", vec![ExtendedKeyUsagePurpose::ClientAuth]),
            Identity::Gateway => ("easel gateway", both),
            Identity::Pods(_) => ("easel pods", both),
        };
        let mut params = params(common, now, LEAF_LIFETIME)?;
        for name in names(identity, namespace) {
            let is_uri = name.contains("://");
            let name = name.try_into()?;
            params.subject_alt_names.push(if is_uri { SanType::URI(name) } else { SanType::DnsName(name) });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        Ok(Pair { cert_pem: params.signed_by(&key, &self.issuer)?.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(common_name: &str, now: Timestamp, lifetime: SignedDuration) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = time(now - BACKDATED)?;
    params.not_after = time(now + lifetime)?;
    Ok(params)
}

fn time(at: Timestamp) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| AuthorityError::Time(at))
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use easel_api::identity::pod_host;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn roots(authority: &Authority) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(der(authority.cert_pem())).unwrap();
        Arc::new(roots)
    }

    fn authority(now: Timestamp) -> Authority {
        Authority::read(&Authority::make(now).unwrap()).unwrap()
    }

    fn unix(at: Timestamp) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.as_second().unsigned_abs()))
    }

    #[test]
    fn a_pods_certificate_is_good_for_the_pods_of_its_deployment_only_and_for_a_week() {
        let now = Timestamp::now();
        let authority = authority(now);
        let pods = Deployment { namespace: "easel-system".into(), name: "easel-pool-cpu".into() };
        let cert = der(&authority.sign(&Identity::Pods(pods), "easel-system", now).unwrap().cert_pem);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(&authority), provider).build().unwrap();
        let verify = |deployment: &str, namespace: &str, at: Timestamp| {
            let host = pod_host("10.0.0.7".parse().unwrap(), deployment, namespace);
            verifier.verify_server_cert(&cert, &[], &ServerName::try_from(host).unwrap(), &[], unix(at)).is_ok()
        };
        assert!(verify("easel-pool-cpu", "easel-system", now));
        assert!(!verify("easel-pool-gpu", "easel-system", now));
        assert!(!verify("easel-pool-cpu", "art", now));
        assert!(!verify("easel-pool-cpu", "easel-system", now + SignedDuration::from_hours(7 * 24 + 1)));
    }

    #[test]
    fn an_identity_chains_to_its_authority_and_to_no_other() {
        let now = Timestamp::now();
        let ours = authority(now);
        let pods = Deployment { namespace: "art".into(), name: "easel-model-m".into() };
        for identity in [Identity::Operator, Identity::Gateway, Identity::Pods(pods)] {
            let pair = ours.sign(&identity, "art", now).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verify = |authority: &Authority| {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority), provider.clone());
                verifier.build().unwrap().verify_client_cert(&der(&pair.cert_pem), &[], unix(now)).is_ok()
            };
            assert!(verify(&ours), "{identity}");
            assert!(!verify(&authority(now)), "{identity}");
        }
    }

    #[test]
    fn of_the_control_plane_only_gateways_serve_and_only_as_the_operators_pods() {
        let now = Timestamp::now();
        let authority = authority(now);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(&authority), provider).build().unwrap();
        let verify = |identity: &Identity, deployment: &str, namespace: &str| {
            let cert = der(&authority.sign(identity, "easel-system", now).unwrap().cert_pem);
            let host = pod_host("10.0.0.7".parse().unwrap(), deployment, namespace);
            verifier.verify_server_cert(&cert, &[], &ServerName::try_from(host).unwrap(), &[], unix(now)).is_ok()
        };
        assert!(verify(&Identity::Gateway, "easel-operator", "easel-system"));
        assert!(!verify(&Identity::Gateway, "easel-operator", "art"));
        assert!(!verify(&Identity::Gateway, "easel-pool-cpu", "easel-system"));
        assert!(!verify(&Identity::Operator, "easel-operator", "easel-system"));
    }

    #[test]
    fn a_printed_pair_shows_no_key() {
        let pair = Authority::make(Timestamp::now()).unwrap();
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}
