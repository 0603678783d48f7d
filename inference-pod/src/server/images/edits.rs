//! Edits: reads the request, whichever form it has, and makes of its picture what a pipeline takes.
//! Knows bodies and pictures; what is answered, and how, it shares with generations.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use easel_api::error::ApiError;
use easel_api::images::{EditRequest, MAX_FORWARDED_EDIT_BODY};

use super::{Counted, Wish, deadline, draining, draw, named, picture, sender, writable};
use crate::pipeline::Edit;
use crate::server::Shared;
use crate::server::respond::read_body;

pub(super) async fn answer(
    shared: &Shared,
    counted: &mut Counted,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let in_flight = shared.drain.enter().ok_or_else(draining)?;
    let (deadline, sender) = (deadline(headers, arrival)?, sender(headers)?);
    let kind = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let body = read_body(body, MAX_FORWARDED_EDIT_BODY).await?;
    let request = EditRequest::read(kind, body).await?;
    request.check()?;
    let (model, served) = named(&shared.engine.snapshot(), request.generation.model.as_deref())?;
    let generation = request.resolve(&served.defaults, &served.limits)?;
    let output = writable(shared, &request.generation)?;
    let image_guidance_scale = request.image_guidance_scale();
    let picture = Arc::new(picture::decode(request.picture, generation.size).await?);
    let edit = Some(Edit { picture, image_guidance_scale, control: None });
    let streaming = request.generation.streaming();
    let wish = Wish { model, generation, edit, output, streaming, arrival, deadline, sender };
    draw(shared, wish, counted, in_flight).await
}
