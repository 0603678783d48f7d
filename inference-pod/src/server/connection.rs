//! Accepts connections, shakes hands, and hands requests to a router, within bounds on time, heads and number.
//! Knows TLS and HTTP's framing; does not know endpoints.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use easel_api::identity::Identity;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

use super::authorize::Caller;
use super::tls::Current;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the head of a request; also how long an idle connection is kept (HTTP/1.1).
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// Streams of one HTTP/2 connection; a gateway has few connections and many requests.
const MAX_STREAMS: u32 = 256;
const PING_EVERY: Duration = Duration::from_secs(20);
const MAX_CONNECTIONS: usize = 1024;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) enum Acceptor {
    Plain,
    Tls(Current),
}

/// Until `stopping`; then answers what has begun and returns.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(limit = MAX_CONNECTIONS, "too many connections, one closed");
            continue;
        };
        let served = match &acceptor {
            Acceptor::Plain => None,
            Acceptor::Tls(current) => Some(current.load_full()),
        };
        let (router, watcher) = (router.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Err(error) = converse(stream, served, router, watcher).await {
                tracing::debug!(error = format!("{error:#}"), "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn converse(
    stream: TcpStream,
    served: Option<Arc<ServerConfig>>,
    router: Router,
    watcher: Watcher,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let Some(served) = served else {
        return requests(stream, builder().http1_only(), router, Caller(None), watcher).await;
    };
    let shaken = TlsAcceptor::from(served).accept(stream);
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaken).await;
    let stream = shaken.context("the handshake took too long")?.context("failed to shake hands")?;
    let session = stream.get_ref().1;
    let caller = Caller(session.peer_certificates().and_then(|chain| Identity::of_certificate(chain.first()?)));
    let builder = match session.alpn_protocol() {
        Some(b"h2") => builder().http2_only(),
        _ => builder().http1_only(),
    };
    requests(stream, builder, router, caller, watcher).await
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

async fn requests<S>(
    stream: S,
    builder: Builder<TokioExecutor>,
    router: Router,
    caller: Caller,
    watcher: Watcher,
) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        router.clone().call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    watcher.watch(connection).await.map_err(|error| anyhow::anyhow!(error))
}
