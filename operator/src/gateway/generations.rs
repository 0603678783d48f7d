//! `POST /v1/images/generations`: parse, ask, render.
//! Owns the order of admit, queue, route and proxy for one request; each of them knows its own part.

use std::fmt::Write as _;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use easel_api::error::ApiError;
use easel_api::images::{GenerationRequest, MAX_GENERATION_BODY};
use easel_planner::units::MicroUsd;
use tokio::time::Instant;
use tracing::warn;

use crate::gateway::admit::{self, Job};
use crate::gateway::body::{self, Accepted};
use crate::gateway::metrics::FaultLabel;
use crate::gateway::observe::{RequestId, Served};
use crate::gateway::proxy::{self, Drawn, WARNING_HEADER};
use crate::gateway::route::Booking;
use crate::gateway::terms::Wishes;
use crate::gateway::tries::{Fault, Tries};
use crate::gateway::{Gateway, render, stream};

const ACCEPTED: Accepted = Accepted { media_types: &["application/json"], limit: MAX_GENERATION_BODY };

/// Pictures, and what is said about them.
struct Finished {
    drawn: Drawn,
    pool: String,
    predicted: Duration,
    cost: MicroUsd,
    /// From the request's head until a pod was asked for the last time.
    queued: Duration,
}

pub(super) async fn generate(
    State(gateway): State<Gateway>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let arrived = Instant::now();
    let job = parse(&gateway, &headers, body, arrived).await;
    run(&gateway, job, &id, arrived).await
}

/// From the admitted job to the response, whatever shall be drawn.
pub(super) async fn run(gateway: &Gateway, job: Result<Job, ApiError>, id: &RequestId, arrived: Instant) -> Response {
    let job = match job {
        Ok(job) => job,
        Err(error) => return render::error(&error),
    };
    gateway.demand().admitted(&job, Instant::now());
    if job.streamed {
        return stream::answer(gateway, job, id, arrived).await;
    }
    let mut tries = Tries::default();
    let finished = draw(gateway, &job, id, &mut tries, arrived).await;
    let served = Served { model: job.model.to_string(), pool: String::new(), attempts: tries.attempts };
    match finished {
        Ok(finished) => answer(&job, finished, served),
        Err(error) => described(&job, served, render::error(&error)),
    }
}

async fn parse(gateway: &Gateway, headers: &HeaderMap, body: Body, arrived: Instant) -> Result<Job, ApiError> {
    let (body, ()) = body::read(headers, body, ACCEPTED, async { Ok(()) }).await?;
    let wishes = Wishes::of(headers, arrived, gateway.args().request_timeout())?;
    let request = GenerationRequest::parse(&body)?;
    request.check()?;
    admit::generation(&gateway.table(), request, &wishes)
}

/// Until some pod has drawn it: a fault of one pod sends it to the next.
async fn draw(
    gateway: &Gateway,
    job: &Job,
    id: &RequestId,
    tries: &mut Tries,
    arrived: Instant,
) -> Result<Finished, ApiError> {
    let queue = gateway.queue();
    let place = queue.desk().place(job.deadline);
    let mut snapshots = gateway.snapshots(job.pictures);
    loop {
        let booking = queue.wait(job, place, tries).await?;
        let queued = arrived.elapsed();
        tries.attempts += 1;
        if !snapshots.is_empty() {
            gateway.metrics().resumed.inc();
        }
        match proxy::ask(gateway, &booking.pod, job, id.as_str(), &mut snapshots).await {
            Ok(drawn) => return Ok(finish(&booking, drawn, queued)),
            Err(fault) => {
                if matches!(fault, Fault::Failed(_)) {
                    snapshots.forget(); // what made it fail may be in them
                }
                put_back(gateway, &booking, id, tries, fault)?;
            }
        }
    }
}

fn finish(booking: &Booking, drawn: Drawn, queued: Duration) -> Finished {
    let cost = booking.pick.price.cost(drawn.upstream);
    Finished { drawn, pool: booking.pod.pool.clone(), predicted: booking.pick.finish, cost, queued }
}

pub(super) fn put_back(
    gateway: &Gateway,
    booking: &Booking,
    id: &RequestId,
    tries: &mut Tries,
    fault: Fault,
) -> Result<(), ApiError> {
    let (pod, reason, now) = (&booking.pick.endpoint, fault.reason(), Instant::now());
    warn!(request_id = id.as_str(), %pod, reason = reason.as_str(), cause = fault.cause(), "pod did not draw");
    let metrics = gateway.metrics();
    metrics.faults.get_or_create(&FaultLabel { reason }).inc();
    if matches!(fault, Fault::Busy) {
        gateway.queue().desk().is_full(pod, now);
    }
    tries.note(pod, fault, gateway.args().max_attempts, now)?;
    metrics.retries.get_or_create(&FaultLabel { reason }).inc();
    Ok(())
}

fn answer(job: &Job, finished: Finished, served: Served) -> Response {
    let Finished { drawn, pool, predicted, cost, queued } = finished;
    let inner = drawn.server_timing.as_ref().map(HeaderValue::to_str).and_then(Result::ok);
    let timing = server_timing(queued, drawn.upstream, inner);
    let mut response = ([(header::CONTENT_TYPE, "application/json")], drawn.body).into_response();
    let headers = response.headers_mut();
    render::set(headers, "x-easel-pool", &pool);
    render::set(headers, "x-easel-predicted-ms", &predicted.as_millis().to_string());
    render::set(headers, "x-easel-cost-usd", &cost.to_string());
    render::set(headers, "server-timing", &timing);
    headers.extend(drawn.warning.map(|warning| (WARNING_HEADER, warning)));
    described(job, Served { pool, ..served }, response)
}

/// What is known of every request that came to a model, answered or not.
pub(super) fn described(job: &Job, served: Served, mut response: Response) -> Response {
    let headers = response.headers_mut();
    render::set(headers, "x-easel-model", &served.model);
    render::set(headers, "x-easel-revision", &job.digest);
    render::set(headers, "x-easel-attempts", &served.attempts.to_string());
    response.extensions_mut().insert(served);
    response
}

/// `inner` is the pod's own.
pub(super) fn server_timing(queued: Duration, upstream: Duration, inner: Option<&str>) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let mut text = format!("queue;dur={:.1}, pod;dur={:.1}", millis(queued), millis(upstream));
    if let Some(inner) = inner {
        let _ = write!(text, ", {inner}");
    }
    text
}
