//! Accepts connections, bounds them, and lets them finish at shutdown.
//! Knows HTTP's frame (heads, timeouts, keep-alive) and nothing of what is asked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::gateway::Gateway;
use crate::gateway::http::router;
use crate::gateway::stall::StallTimeout;

/// Until a request's head is there, and how long a connection may be idle: longer than common clients keep theirs, so that
/// it is they who close it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const MAX_HEADERS: usize = 64;
/// Of a request's head; also of what is read ahead of a body.
const MAX_BUFFER: usize = 64 << 10;
/// A client that takes no byte for this time is gone, and its pictures' memory is needed.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Without file handles, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then lets requests under way finish within the drain time.
///
/// HTTP/1.1 only: one request a connection at a time is what bounds memory here, and what the proxies before a
/// gateway speak to it anyway.
pub async fn serve(listener: TcpListener, gateway: Gateway, shutdown: CancellationToken) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(gateway.args().max_connections as usize));
    let (graceful, cut) = (GracefulShutdown::new(), CancellationToken::new());
    let service = TowerToHyperService::new(router(gateway.clone()));
    let accepting = async {
        loop {
            let permit = Arc::clone(&connections).acquire_owned().await.map_err(io::Error::other)?;
            let Some(stream) = accept(&listener).await? else { continue };
            let connection =
                http().serve_connection(TokioIo::new(StallTimeout::new(stream, STALL_TIMEOUT)), service.clone());
            tokio::spawn(run(graceful.watch(connection), permit, cut.clone()));
        }
    };
    let ended = tokio::select! {
        ended = accepting => ended,
        () = shutdown.cancelled() => Ok(()),
    };
    drop(listener);
    drain(graceful, gateway.args().drain()).await;
    cut.cancel();
    ended
}

/// `None` for a fault of this one connection.
async fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept().await {
        Ok((stream, _)) => {
            stream.set_nodelay(true)?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(error),
        Err(error) => {
            warn!(%error, "failed to accept a connection");
            sleep(ACCEPT_PAUSE).await;
            Ok(None)
        }
    }
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    http.header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS).max_buf_size(MAX_BUFFER);
    http
}

async fn run(
    connection: impl Future<Output = hyper::Result<()>>,
    _permit: OwnedSemaphorePermit,
    cut: CancellationToken,
) {
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            debug!(%error, "connection ended");
        },
        () = cut.cancelled() => {}
    }
}

async fn drain(graceful: GracefulShutdown, time: Duration) {
    let open = graceful.count();
    let drained = timeout(time, graceful.shutdown()).await.is_ok();
    info!(open, drained, "gateway stopped");
}
