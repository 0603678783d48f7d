//! Accepts connections of the control port, shakes hands, and hands requests to the routes, within bounds.
//! Owns the TLS configuration, which follows the gateway's certificate; does not know what a caller may do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::{Extension, Router};
use easel_api::identity::Identity;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::caller::Caller;
use crate::gateway::stall::StallTimeout;
use crate::pod_client::{Credentials, certificates, key};

/// Of replicas and their successors; more are closed at once.
const MAX_CONNECTIONS: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the head of a request; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// A reader that takes no byte for this time is gone, and its place is needed.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Until it is dropped.
pub(super) async fn serve(listener: TcpListener, mut credentials: watch::Receiver<Credentials>, routes: Router) {
    let mut connections = JoinSet::new();
    let mut current = renewed(None, &credentials.borrow_and_update());
    loop {
        tokio::select! {
            Ok(()) = credentials.changed() => current = renewed(current, &credentials.borrow_and_update()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match (accepted, &current) {
                (Ok(_), _) if connections.len() >= MAX_CONNECTIONS => {
                    warn!(limit = MAX_CONNECTIONS, "too many connections to the control port, one closed");
                }
                (Ok((stream, _)), Some(tls)) => drop(connections.spawn(run(stream, tls.clone(), routes.clone()))),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Credentials that can't be used leave the present ones in force.
fn renewed(former: Option<Arc<ServerConfig>>, credentials: &Credentials) -> Option<Arc<ServerConfig>> {
    match tls(credentials) {
        Ok(config) => Some(Arc::new(config)),
        Err(error) => {
            warn!(error = format!("{error:#}"), "failed to serve the control port with the gateway's certificate");
            former
        }
    }
}

/// TLS 1.3. A client certificate of the authority is required: without one the handshake fails.
fn tls(credentials: &Credentials) -> anyhow::Result<ServerConfig> {
    let Credentials { ca_pem, cert_pem, key_pem } = credentials;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates("the authority", ca_pem)? {
        roots.add(authority)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().context("failed to trust the authority")?;
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let chain = certificates("the certificate", cert_pem)?;
    Ok(config.with_client_cert_verifier(verifier).with_single_cert(chain, key(key_pem)?)?)
}

async fn run(stream: TcpStream, tls: Arc<ServerConfig>, routes: Router) {
    if let Err(error) = converse(stream, tls, routes).await {
        debug!(error = format!("{error:#}"), "connection of the control port ended");
    }
}

async fn converse(stream: TcpStream, tls: Arc<ServerConfig>, routes: Router) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let shaken = TlsAcceptor::from(tls).accept(StallTimeout::new(stream, STALL_TIMEOUT));
    let shaken = timeout(HANDSHAKE_TIMEOUT, shaken).await;
    let stream = shaken.context("the handshake took too long")?.context("failed to shake hands")?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let caller = Caller(certificate.and_then(|certificate| Identity::of_certificate(certificate)));
    let service = TowerToHyperService::new(routes.layer(Extension(caller)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    http.header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD_BYTES);
    http.serve_connection(TokioIo::new(stream), service).await.context("failed to serve")
}
