//! Asks one pod once: sends the job, with snapshots if there are any, reads the whole answer, says what came of it.
//! Knows HTTP and the pod's answers; does not choose pods and does not ask again.

mod events;
mod framed;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use easel_api::engine::HANDOVER_PATH;
use easel_api::error::{ApiError, ErrorEnvelope, ErrorKind};
use easel_api::frames::{FRAMES_MEDIA_TYPE, SNAPSHOT_STEPS_HEADER};
use easel_api::precedence::{PRIORITY_HEADER, TENANT_HEADER};
use reqwest::{RequestBuilder, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::gateway::Gateway;
use crate::gateway::admit::Job;
use crate::gateway::snapshots::Snapshots;
use crate::gateway::terms::DEADLINE_HEADER;
use crate::gateway::tries::Fault;
use crate::pod_client::PodClient;
use crate::routing_table::Pod;

pub(super) use self::events::Events;

pub(super) const REQUEST_ID_HEADER: &str = "x-request-id";
/// What the model does not know of the prompt.
pub(super) const WARNING_HEADER: HeaderName = HeaderName::from_static("x-easel-warning");

/// An envelope with a sentence in it.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// Pictures, whole. They count against the gateway's memory until their last byte is on the wire.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) body: Bytes,
    pub(super) upstream: Duration,
    pub(super) server_timing: Option<HeaderValue>,
    pub(super) warning: Option<HeaderValue>,
}

/// The memory for answers on their way to clients, or for pictures on their way to pods.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    kib: Arc<Semaphore>,
    total_kib: u32,
}

/// Bytes that give their memory back when they are dropped.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Memory {
    pub(super) fn new(mib: u32) -> Self {
        let total_kib = mib.saturating_mul(1024);
        Self { kib: Arc::new(Semaphore::new(total_kib as usize)), total_kib }
    }

    /// Taken whole before the first byte is read, so that two half-read answers never wait for one another.
    pub(super) async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        let taken = Arc::clone(&self.kib).acquire_many_owned(kib(bytes).min(self.total_kib)).await;
        taken.expect("the semaphore is never closed")
    }

    /// `None` when there is not so much now.
    pub(super) fn try_take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.kib).try_acquire_many_owned(kib(bytes)).ok()
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// A whole answer, whatever its status.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Snapshots that come before the answer are put to `snapshots`; those that it has go with the request.
pub(super) async fn ask(
    gateway: &Gateway,
    pod: &Pod,
    job: &Job,
    request_id: &str,
    snapshots: &mut Snapshots,
) -> Result<Drawn, Fault> {
    let sent = Instant::now();
    let asked = async {
        let request = begin(gateway.client(), pod, job, snapshots);
        let request = request.header(SNAPSHOT_STEPS_HEADER, gateway.args().snapshot_steps.to_string());
        let response = send(request, job, request_id).await?;
        let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if kind == FRAMES_MEDIA_TYPE.as_bytes() {
            framed::read(gateway.memory(), response, job.max_response, snapshots).await
        } else {
            plain(gateway.memory(), response, job.max_response).await
        }
    };
    let answer = timeout_at(job.deadline, asked).await.unwrap_or(Err(Fault::Late))?;
    let Answer { status, headers, body } = answer;
    if status != StatusCode::OK {
        return Err(refused(status, &headers, &body));
    }
    let (server_timing, warning) = (headers.get("server-timing").cloned(), headers.get(WARNING_HEADER).cloned());
    Ok(Drawn { body, upstream: sent.elapsed(), server_timing, warning })
}

/// As [`ask`] for a stream, as soon as its head is there. Streams have no snapshots.
pub(super) async fn open(client: &PodClient, pod: &Pod, job: &Job, request_id: &str) -> Result<Events, Fault> {
    let asked = timeout_at(job.deadline, send(from_the_beginning(client, pod, job), job, request_id)).await;
    Ok(Events::new(asked.unwrap_or(Err(Fault::Late))?, job.max_event))
}

/// What shall be drawn: from the beginning, or from the snapshots.
fn begin(client: &PodClient, pod: &Pod, job: &Job, snapshots: &Snapshots) -> RequestBuilder {
    if snapshots.is_empty() {
        return from_the_beginning(client, pod, job);
    }
    let request = client.request(Method::POST, pod, HANDOVER_PATH).header(header::CONTENT_TYPE, FRAMES_MEDIA_TYPE);
    request.body(framed::handover(job, snapshots))
}

fn from_the_beginning(client: &PodClient, pod: &Pod, job: &Job) -> RequestBuilder {
    let request = client.request(Method::POST, pod, job.path).header(header::CONTENT_TYPE, "application/json");
    request.body(job.body.clone())
}

async fn send(request: RequestBuilder, job: &Job, request_id: &str) -> Result<Response, Fault> {
    let left = job.deadline.saturating_duration_since(Instant::now()).as_millis();
    let request = request
        .header(DEADLINE_HEADER, left.to_string())
        .header(REQUEST_ID_HEADER, request_id)
        .header(PRIORITY_HEADER, job.precedence.priority.as_str());
    let request = match job.precedence.tenant.as_str() {
        "" => request,
        tenant => request.header(TENANT_HEADER, tenant),
    };
    let mut response = request.send().await.map_err(|error| broken(&error))?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => {
            let headers = std::mem::take(response.headers_mut());
            Err(refused(status, &headers, &bounded(response, MAX_ERROR_BODY).await?))
        }
    }
}

async fn plain(memory: &Memory, mut response: Response, limit: u64) -> Result<Answer, Fault> {
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let permit = memory.take(response.content_length().unwrap_or(limit).min(limit)).await;
    let bytes = bounded(response, limit).await?;
    Ok(Answer { status, headers, body: counted(bytes, permit) })
}

fn counted(bytes: Vec<u8>, memory: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Counted { bytes, _memory: Some(memory) })
}

async fn bounded(mut response: Response, limit: u64) -> Result<Vec<u8>, Fault> {
    let length = response.content_length().unwrap_or(0);
    if length > limit {
        return Err(too_long(limit));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_long(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_long(limit: u64) -> Fault {
    Fault::Failed(format!("the pod's answer is longer than {limit} bytes"))
}

/// What a status other than 200 means for the request.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Fault {
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let envelope = serde_json::from_slice::<ErrorEnvelope>(body).ok();
    let code = envelope.as_ref().and_then(|envelope| envelope.error.code.as_deref()).unwrap_or_default();
    match (status.as_u16(), code) {
        (503, "draining") => Fault::Draining,
        (429 | 503, _) => Fault::Busy,
        (404, "model_not_resident" | "model_not_found" | "adapter_not_resident") => Fault::NotResident,
        (504, _) => Fault::Late,
        (409, "request_cancelled") | (400 | 413 | 415 | 422, _) => match envelope {
            Some(envelope) => Fault::Refused(pass_on(status, envelope, retry_after)),
            None => Fault::Failed(format!("the pod answered {status} without a reason")),
        },
        // 403 is about the gateway's own certificate, and so no fault of the client's.
        _ => Fault::Failed(match envelope {
            Some(envelope) => format!("the pod answered {status}: {}", envelope.error.message),
            None => format!("the pod answered {status}"),
        }),
    }
}

fn pass_on(status: StatusCode, envelope: ErrorEnvelope, retry_after: Option<u64>) -> ApiError {
    let error = envelope.error;
    let kind = ErrorKind::InvalidRequest;
    ApiError {
        status: status.as_u16(),
        kind,
        message: error.message,
        param: error.param,
        code: error.code,
        retry_after,
    }
}

/// A connection that did not come about, or that broke.
fn broken(error: &reqwest::Error) -> Fault {
    let cause = chain(error);
    // With TLS 1.3 a pod's refusal of our certificate comes only after the request was sent.
    if error.is_connect() || error.is_builder() || is_tls(error) {
        Fault::Unreachable(cause)
    } else {
        Fault::Lost(cause)
    }
}

fn is_tls(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) || cause.is::<rustls::Error>()
    })
}

/// Without the URL: a pod's address is no client's business.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::from("the connection to the pod failed");
    if let Some(last) = causes(error).last() {
        let _ = write!(text, ": {last}");
    }
    text
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source())
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
