//! The answer as server-sent events: each is passed on as soon as it is whole, whichever pod has made it.
//! Owns what the client has already, which another pod would send again; knows no picture.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use easel_api::error::{ApiError, ErrorBody, ErrorKind};
use easel_api::images::{EVENT_STREAM, EventKey, StreamEvent};
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::gateway::admit::Job;
use crate::gateway::generations::{described, put_back, server_timing};
use crate::gateway::observe::{Later, RequestId, Served};
use crate::gateway::proxy::{self, Counted, Events};
use crate::gateway::route::{Booking, Place};
use crate::gateway::tries::{Fault, Tries};
use crate::gateway::{Gateway, render};

/// One request. Dropping it hangs up on the pod, which stops drawing.
struct Relay {
    gateway: Gateway,
    job: Job,
    id: RequestId,
    place: Place,
    tries: Tries,
    arrived: Instant,
    asked: Option<Asked>,
    /// By seed: how far the client has seen each picture.
    reached: BTreeMap<u64, Reached>,
    ended: bool,
    later: Later,
}

/// The pod that draws.
struct Asked {
    booking: Booking,
    events: Events,
    sent: Instant,
    /// From the request's head until this pod was asked.
    queued: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Preview(u32),
    Finished,
}

/// The head is written with the first event, so that whatever fails before has its status.
pub(super) async fn answer(gateway: &Gateway, job: Job, id: &RequestId, arrived: Instant) -> Response {
    let mut relay = Relay {
        gateway: gateway.clone(),
        id: id.clone(),
        place: gateway.queue().desk().place(job.deadline),
        job: job.clone(),
        tries: Tries::default(),
        arrived,
        asked: None,
        reached: BTreeMap::new(),
        ended: false,
        later: Later::default(),
    };
    let first = match relay.next().await {
        Ok(first) => first,
        Err(error) => return described(&job, relay.served(), render::error(&error)),
    };
    let (served, later) = (relay.served(), relay.later.clone());
    let rest = stream::unfold(relay, |mut relay| async move {
        let event = relay.next_or_error().await?;
        Some((event, relay))
    });
    let events = stream::iter(first).chain(rest).map(Ok::<_, Infallible>);
    let head = [(header::CONTENT_TYPE, EVENT_STREAM), (header::CACHE_CONTROL, "no-cache")];
    let mut response = (head, Body::from_stream(events)).into_response();
    response.extensions_mut().insert(later);
    described(&job, served, response)
}

impl Relay {
    /// `None` once the client has every picture.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        while self.finished() < self.job.pictures as usize {
            let mut asked = match self.asked.take() {
                Some(asked) => asked,
                None => self.ask().await?,
            };
            let event = timeout_at(self.job.deadline, asked.events.next(self.gateway.memory())).await;
            match event.unwrap_or(Err(Fault::Late)).and_then(|event| self.read(&asked, event)) {
                Ok(event) => {
                    self.asked = Some(asked);
                    if event.is_some() {
                        return Ok(event);
                    }
                }
                Err(fault) => put_back(&self.gateway, &asked.booking, &self.id, &mut self.tries, fault)?,
            }
        }
        Ok(None)
    }

    /// As [`Self::next`], once there is no other way to tell of an error than an event.
    async fn next_or_error(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let next = self.next().await;
        self.ended = !matches!(next, Ok(Some(_)));
        match next {
            Ok(Some(event)) => Some(event),
            Ok(None) => {
                self.later.ended(StatusCode::OK, self.served());
                None
            }
            Err(error) => {
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                self.later.ended(status, self.served());
                StreamEvent::failed(&error).to_wire().ok().map(Bytes::from)
            }
        }
    }

    /// Until some pod has begun to answer.
    async fn ask(&mut self) -> Result<Asked, ApiError> {
        loop {
            let booking = self.gateway.queue().wait(&self.job, self.place, &mut self.tries).await?;
            self.tries.attempts += 1;
            let (sent, queued) = (Instant::now(), self.arrived.elapsed());
            let opened = proxy::open(self.gateway.client(), &booking.pod, &self.job, self.id.as_str());
            match opened.await {
                Ok(events) => return Ok(Asked { booking, events, sent, queued }),
                Err(fault) => put_back(&self.gateway, &booking, &self.id, &mut self.tries, fault)?,
            }
        }
    }

    /// What the client shall have of this event: nothing, if it has it already.
    fn read(&mut self, asked: &Asked, event: Option<Counted>) -> Result<Option<Bytes>, Fault> {
        let mut event = event.ok_or_else(|| Fault::Lost("the pod's answer ended before its last picture".into()))?;
        let key =
            EventKey::of_wire(&event.bytes).map_err(|_| Fault::Failed("the pod sent no event of pictures".into()))?;
        let EventKey { kind, seed, partial_image_index } = key.map_err(fault)?;
        let reached = match partial_image_index {
            _ if kind.is_completed() => Reached::Finished,
            index => Reached::Preview(index.unwrap_or(0)),
        };
        if self.reached.get(&seed).is_some_and(|before| *before >= reached) {
            return Ok(None);
        }
        if reached == Reached::Finished && self.finished() + 1 == self.job.pictures as usize {
            event.bytes = self.last(asked, &event.bytes)?;
        }
        self.reached.insert(seed, reached);
        Ok(Some(Bytes::from_owner(event)))
    }

    fn finished(&self) -> usize {
        self.reached.values().filter(|reached| **reached == Reached::Finished).count()
    }

    /// With what is known only now: the headers of an answer that is not streamed.
    fn last(&self, asked: &Asked, event: &[u8]) -> Result<Vec<u8>, Fault> {
        let unreadable = |_| Fault::Failed("the pod's last event can't be read".into());
        let mut event = StreamEvent::of_wire(event).map_err(unreadable)?;
        if let StreamEvent::Picture(picture) = &mut event {
            let Asked { booking, events: _, sent, queued } = asked;
            let upstream = sent.elapsed();
            let trailers = picture.trailers.get_or_insert_default();
            let timing = server_timing(*queued, upstream, trailers.get("server-timing").map(String::as_str));
            let ours = [
                ("server-timing", timing),
                ("x-easel-attempts", self.tries.attempts.to_string()),
                ("x-easel-cost-usd", booking.pick.price.cost(upstream).to_string()),
                ("x-easel-pool", booking.pod.pool.clone()),
                ("x-easel-predicted-ms", booking.pick.finish.as_millis().to_string()),
            ];
            trailers.extend(ours.map(|(name, value)| (name.to_owned(), value)));
        }
        event.to_wire().map_err(unreadable)
    }

    fn served(&self) -> Served {
        let pool = self.asked.as_ref().map(|asked| asked.booking.pod.pool.clone()).unwrap_or_default();
        Served { model: self.job.model.to_string(), pool, attempts: self.tries.attempts }
    }
}

/// What an error means that a pod tells after its head.
fn fault(error: ErrorBody) -> Fault {
    let ErrorBody { message, kind, param, code } = error;
    let is = |wanted: ErrorKind| kind == wanted.as_str();
    match code.as_deref() {
        Some("deadline_exceeded") => Fault::Late,
        _ if is(ErrorKind::Overloaded) => Fault::Busy,
        _ if is(ErrorKind::InvalidRequest) => Fault::Refused(ApiError { param, code, ..ApiError::malformed(message) }),
        _ => Fault::Failed(message),
    }
}
