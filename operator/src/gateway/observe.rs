//! What every request has, whatever its path: an id, a line in the log, its counts.
//! Knows how requests end; never sees a prompt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tracing::info;

use crate::gateway::metrics::{GatewayMetrics, ModelLabel, Outcome, RequestLabels, Up};
use crate::gateway::proxy::REQUEST_ID_HEADER;
use crate::gateway::{Gateway, render};

const MAX_ID: usize = 128;
/// Nobody gets it: the number that proxies log for a client that hung up.
const CLIENT_CLOSED: u16 = 499;

#[derive(Clone, Debug)]
pub(super) struct RequestId(Arc<str>);

/// Put into a response's extensions by whoever knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub(super) model: String,
    pub(super) pool: String,
    pub(super) attempts: u32,
}

/// Put into a response's extensions by whoever writes its body, to say at its end how the request ended. Until then it
/// counts as under way, and as one whose client hung up if all clones are dropped before.
#[derive(Clone, Debug, Default)]
pub(super) struct Later(Arc<Mutex<Option<Ending>>>);

/// Says how the request ended when it is dropped, so that one whose client hung up is counted too.
#[derive(Debug)]
struct Ending {
    metrics: GatewayMetrics,
    id: RequestId,
    method: Method,
    begun: Instant,
    served: Served,
    status: Option<StatusCode>,
    _in_flight: Up,
}

impl RequestId {
    /// The client's own, if it can stand in a log line; a new one otherwise.
    fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        match sent {
            Some(id) if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(plain) => Self(id.into()),
            _ => Self(random_uuid(rand::random()).into()),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 9562, version 4: the version and the variant take 6 of the bits.
fn random_uuid(bits: u128) -> String {
    let bits = (bits & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

pub(super) async fn observe(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let metrics = gateway.metrics().clone();
    let mut ending = Ending {
        _in_flight: Up::new(&metrics.in_flight),
        metrics,
        id: id.clone(),
        method: request.method().clone(),
        begun: Instant::now(),
        served: Served::default(),
        status: None,
    };
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    ending.status = Some(response.status());
    ending.served = response.extensions_mut().remove::<Served>().unwrap_or_default();
    render::set(response.headers_mut(), REQUEST_ID_HEADER, id.as_str());
    if let Some(later) = response.extensions_mut().remove::<Later>() {
        ending.status = None;
        *later.ending() = Some(ending);
    }
    response
}

impl Later {
    pub(super) fn ended(&self, status: StatusCode, served: Served) {
        if let Some(mut ending) = self.ending().take() {
            ending.status = Some(status);
            ending.served = served;
        }
    }

    fn ending(&self) -> MutexGuard<'_, Option<Ending>> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Served { model, pool, attempts } = std::mem::take(&mut self.served);
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        let took = self.begun.elapsed();
        let (request_id, method, millis) = (self.id.as_str(), self.method.as_str(), took.as_millis());
        info!(request_id, method, model, pool, status, attempts, millis, "request");
        let outcome = self.status.map_or(Outcome::Cancelled, |status| Outcome::of_status(status.as_u16()));
        self.metrics.seconds.get_or_create(&ModelLabel { model: model.clone() }).observe(took.as_secs_f64());
        self.metrics.requests.get_or_create(&RequestLabels { model, outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_only_if_it_can_stand_in_a_log_line() {
        let of = |value: &str| {
            RequestId::of(&HeaderMap::from_iter([(REQUEST_ID_HEADER.parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(of("abc-1.2:3").as_str(), "abc-1.2:3");
        for refused in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_ne!(of(refused).as_str(), refused);
        }
    }

    #[test]
    fn a_new_id_is_a_uuid_of_version_4() {
        assert_eq!(random_uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(random_uuid(0), "00000000-0000-4000-8000-000000000000");
    }
}
