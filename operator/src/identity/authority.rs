//! Signs: the authority's own certificate, client identities and server certificates. ECDSA P-256, each key made here
//! and never read back. Knows no Kubernetes.

use std::fmt;

use easel_api::identity::{Identity, pod_domain};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::renewal::{AUTHORITY_LIFETIME, BACKDATED, LEAF_LIFETIME};

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
    #[error("failed to express {0} as a certificate's time")]
    Time(Timestamp),
}

/// What signs.
pub struct Authority {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A caller of pods.
    Client(Identity),
    /// The pods of a Deployment.
    Pods { deployment: &'a str, namespace: &'a str },
}

impl Subject<'_> {
    /// The one subject alternative name.
    pub fn name(&self) -> String {
        match self {
            Self::Client(identity) => identity.uri().to_owned(),
            Self::Pods { deployment, namespace } => format!("*.{}", pod_domain(deployment, namespace)),
        }
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

    pub fn sign(&self, subject: Subject<'_>, now: Timestamp) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate()?;
        let (common, usage) = match subject {
            Subject::Client(Identity::Operator) => ("easel operator", ExtendedKeyUsagePurpose::ClientAuth),
            Subject::Client(Identity::Gateway) => ("easel gateway", ExtendedKeyUsagePurpose::ClientAuth),
            Subject::Pods { .. } => ("easel pods", ExtendedKeyUsagePurpose::ServerAuth),
        };
        let mut params = params(common, now, LEAF_LIFETIME)?;
        let name = subject.name().try_into()?;
        params.subject_alt_names = vec![match subject {
            Subject::Client(_) => SanType::URI(name),
            Subject::Pods { .. } => SanType::DnsName(name),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
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
        let subject = Subject::Pods { deployment: "easel-pool-cpu", namespace: "easel-system" };
        let cert = der(&authority.sign(subject, now).unwrap().cert_pem);
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
    fn a_client_identity_chains_to_its_authority_and_to_no_other() {
        let now = Timestamp::now();
        let ours = authority(now);
        let pair = ours.sign(Subject::Client(Identity::Operator), now).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verify = |authority: &Authority| {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority), provider.clone());
            verifier.build().unwrap().verify_client_cert(&der(&pair.cert_pem), &[], unix(now)).is_ok()
        };
        assert!(verify(&ours));
        assert!(!verify(&authority(now)));
    }

    #[test]
    fn a_printed_pair_shows_no_key() {
        let pair = Authority::make(Timestamp::now()).unwrap();
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}
