//! The one way to call a pod: HTTP/1.1 over mutual TLS, to the address that the pod's name carries.
//! Knows certificates and addresses; does not know what is asked of a pod, nor when to ask again.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use easel_api::identity::{address_of, pod_host};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Method, RequestBuilder};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::routing_table::Pod;

/// A pod is on the cluster's own network: what doesn't answer in this time is gone or overrun.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections kept for the next request, per pod, and for how long.
const MAX_IDLE_PER_POD: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A pod says nothing while it draws, so only these probes tell a lost node from a long picture: gone after 10 + 3 × 5 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// Bytes that were sent and are never acknowledged end the connection too.
const USER_TIMEOUT: Duration = Duration::from_secs(25);

/// Who the caller is, and whose pods it trusts. PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The deployment's own authorities: several while one is being replaced.
    pub ca_pem: String,
    /// The caller's certificate, leaf first; its URI is an [`easel_api::identity::Identity`].
    pub cert_pem: String,
    pub key_pem: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("failed to read {part} as PEM")]
    Pem { part: &'static str, source: pem::Error },
    #[error("{part} holds no certificate")]
    Empty { part: &'static str },
    #[error("failed to use the credentials")]
    Rustls(#[from] rustls::Error),
    #[error("failed to build the HTTP client")]
    Client(#[from] reqwest::Error),
}

/// Cheap to clone; all clones see the newest credentials.
#[derive(Clone)]
pub struct PodClient {
    client: Arc<ArcSwap<Client>>,
}

impl PodClient {
    pub fn new(credentials: &Credentials) -> Result<Self, CredentialsError> {
        Ok(Self { client: Arc::new(ArcSwap::from_pointee(build(credentials)?)) })
    }

    /// Requests from now on use these credentials, on new connections; those under way finish on theirs.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), CredentialsError> {
        self.client.store(Arc::new(build(credentials)?));
        Ok(())
    }

    /// Has no time limit but the connect timeout: report streams live long, so the caller sets one.
    pub fn request(&self, method: Method, pod: &Pod, path: &str) -> RequestBuilder {
        self.client.load().request(method, Self::url(pod, path))
    }

    /// `path` starts with a slash.
    pub fn url(pod: &Pod, path: &str) -> String {
        let host = pod_host(pod.address, &pod.deployment, &pod.namespace);
        format!("https://{host}:{}{path}", pod.port)
    }
}

fn build(credentials: &Credentials) -> Result<Client, CredentialsError> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls(credentials)?)
        .https_only(true)
        .http1_only()
        .dns_resolver(Arc::new(PodNames))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_PER_POD)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE_INTERVAL)
        .tcp_keepalive_retries(KEEPALIVE_PROBES);
    #[cfg(target_os = "linux")]
    let client = client.tcp_user_timeout(USER_TIMEOUT);
    Ok(client.build()?)
}

/// TLS 1.3 with nobody's authority but ours.
fn tls(credentials: &Credentials) -> Result<ClientConfig, CredentialsError> {
    let Credentials { ca_pem, cert_pem, key_pem } = credentials;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the authority", ca_pem)? {
        roots.add(certificate)?;
    }
    let chain = certificates("the certificate", cert_pem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(config.with_root_certificates(roots).with_client_auth_cert(chain, key(key_pem)?)?)
}

pub(crate) fn key(text: &str) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
    key.map_err(|source| CredentialsError::Pem { part: "the key", source })
}

pub(crate) fn certificates(part: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let read = read.map_err(|source| CredentialsError::Pem { part, source })?;
    if read.is_empty() { Err(CredentialsError::Empty { part }) } else { Ok(read) }
}

/// Reads the address out of the name, and asks no DNS server: a name that isn't a pod's leads nowhere.
struct PodNames;

#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not the name of a pod")]
struct NotAPod(String);

impl Resolve for PodNames {
    fn resolve(&self, name: Name) -> Resolving {
        let found = address_of(name.as_str()).ok_or_else(|| NotAPod(name.as_str().to_owned()));
        // Port 0: the URL's own port is used.
        let addresses = found.map(|address| Box::new(std::iter::once(SocketAddr::new(address, 0))) as Addrs);
        Box::pin(std::future::ready(addresses.map_err(Into::into)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl fmt::Debug for PodClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Credentials {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap().pem();
        Credentials { ca_pem: cert.clone(), cert_pem: cert, key_pem: key.serialize_pem() }
    }

    #[test]
    fn printed_credentials_show_no_key() {
        assert_eq!(format!("{:?}", made()), "Credentials { .. }");
    }

    #[test]
    fn broken_credentials_are_refused_with_the_part_that_is_broken() {
        let made = made();
        let part = |credentials: Credentials| PodClient::new(&credentials).unwrap_err().to_string();
        assert!(part(Credentials { ca_pem: String::new(), ..made.clone() }).contains("the authority"));
        assert!(part(Credentials { cert_pem: "x".into(), ..made.clone() }).contains("the certificate"));
        assert!(part(Credentials { key_pem: "x".into(), ..made.clone() }).contains("the key"));
        assert!(PodClient::new(&made).unwrap().replace(&Credentials { key_pem: String::new(), ..made }).is_err());
    }

    #[tokio::test]
    async fn a_name_that_is_no_pods_is_never_looked_up() {
        let client = build(&made()).unwrap();
        let error = client.get("https://localhost:1/").send().await.unwrap_err();
        assert!(format!("{error:?}").contains("NotAPod"), "{error:?}");
    }
}
