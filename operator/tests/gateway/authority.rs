//! A deployment's own certificate authority, as the operator makes it.

use easel_api::identity::{Identity, pod_domain};
use easel_operator::pod_client::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn credentials(&self, identity: &Identity) -> Credentials {
        let uri = SanType::URI(identity.uri().into_owned().try_into().unwrap());
        let (cert_pem, key_pem) = self.issue(uri, ExtendedKeyUsagePurpose::ClientAuth);
        Credentials { ca_pem: self.issuer.pem(), cert_pem, key_pem }
    }

    /// What a pod of this deployment serves with: its own name, and only callers that this authority knows.
    pub(crate) fn server(&self, deployment: &str, namespace: &str) -> Arc<ServerConfig> {
        let name = format!("*.{}", pod_domain(deployment, namespace));
        let (cert, key) = self.issue(SanType::DnsName(name.try_into().unwrap()), ExtendedKeyUsagePurpose::ServerAuth);
        serving(&self.issuer.pem(), &cert, &key)
    }

    fn issue(&self, name: SanType, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A pod's server: its own certificate, and only callers of these authorities.
pub(crate) fn serving(trusted_pem: &str, cert_pem: &str, key_pem: &str) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(trusted_pem.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(cert_pem.as_bytes()).unwrap()];
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(verifier);
    Arc::new(config.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap()).unwrap())
}
