//! `GET /operator/v1/demand`: JSON lines, as long as the caller reads them.
//! Knows when to speak; what is said is the gateway's.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use easel_api::error::ApiError;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep};

use super::{MAX_READERS, Shared};
use crate::gateway::{Demand, render};

/// A listener takes one that is silent for some seconds for lost.
const EVERY: Duration = Duration::from_secs(1);
/// Requests that come and go by the hundred ring as often; this far apart are two lines at least.
const APART: Duration = Duration::from_millis(50);

pub(super) async fn stream(State(shared): State<Shared>) -> Response {
    let Ok(place) = shared.readers.try_acquire_owned() else {
        let message = format!("{MAX_READERS} listen to this gateway's demand already");
        return render::error(&ApiError::unavailable("too_many_readers", message, 1));
    };
    let lines = futures::stream::unfold(Reader::new(shared.demand, place), async |mut reader| {
        let line = reader.next().await?;
        Some((Ok::<_, Infallible>(line), reader))
    });
    let head = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    (head, Body::from_stream(lines)).into_response()
}

struct Reader {
    demand: Demand,
    bell: watch::Receiver<()>,
    spoken: bool,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn new(demand: Demand, place: OwnedSemaphorePermit) -> Self {
        Self { bell: demand.bell(), demand, spoken: false, _place: place }
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.spoken {
            sleep(APART).await;
            tokio::select! {
                _ = self.bell.changed() => {}
                () = sleep(EVERY.saturating_sub(APART)) => {}
            }
        }
        self.spoken = true;
        // What rings from here on is in the next line too.
        self.bell.mark_unchanged();
        let mut line = serde_json::to_vec(&self.demand.report(Instant::now())).ok()?;
        line.push(b'\n');
        Some(line.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_comes_at_once_every_second_and_when_it_rings_but_never_too_often() {
        let demand = Demand::new();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (mut reader, begun) = (Reader::new(demand.clone(), place), Instant::now());
        let mut said_at = async || {
            let line = reader.next().await.unwrap();
            assert_eq!(line, "{\"models\":[]}\n");
            begun.elapsed()
        };
        assert_eq!(said_at().await, Duration::ZERO);
        assert_eq!(said_at().await, EVERY);
        let rings = async {
            sleep(Duration::from_millis(300)).await;
            demand.ring();
            demand.ring();
        };
        assert_eq!(tokio::join!(said_at(), rings).0, EVERY + Duration::from_millis(300));
        demand.ring();
        assert_eq!(said_at().await, EVERY + Duration::from_millis(300) + APART);
    }
}
