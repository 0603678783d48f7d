//! The HTTP client that pushes. Knows TLS and time; does not know what is pushed.

use std::time::Duration;

use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;

/// A host that does not answer in this time is not there.
const CONNECT: Duration = Duration::from_secs(10);

/// `ca`: PEM of an authority to trust beside the system's. The program must have installed a rustls provider.
pub fn client(plain_http: bool, ca: Option<&str>) -> Result<Client, OciDistributionError> {
    let authority = |pem: &str| Certificate { encoding: CertificateEncoding::Pem, data: pem.as_bytes().to_vec() };
    Client::try_from(ClientConfig {
        protocol: if plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
        extra_root_certificates: ca.map(authority).into_iter().collect(),
        use_monolithic_push: true,
        connect_timeout: Some(CONNECT),
        // No read timeout: it would count from a request's start, and a large file's takes minutes.
        user_agent: concat!("easel/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}
