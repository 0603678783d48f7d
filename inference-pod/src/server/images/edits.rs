//! Edits and variations: reads the request, whichever form it has, and makes of its pictures what a pipeline takes.
//! Knows bodies and pictures; what is answered, and how, it shares with generations.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use easel_api::engine::{ModelDefaults, ModelLimits};
use easel_api::error::ApiError;
use easel_api::images::{EditRequest, EditWay, Generation, MAX_FORWARDED_EDIT_BODY, VariationRequest};

use super::picture::{self, Sent};
use super::{Begun, Counted, Wish, deadline, draining, draw, named, sender, snapshot_steps, writable};
use crate::pipeline::{Edit, Way};
use crate::server::Shared;
use crate::server::respond::read_body;

/// Which of both a body is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Edit,
    Variation,
}

enum Request {
    Edit(EditRequest),
    Variation(VariationRequest),
}

impl Request {
    async fn read(kind: Kind, content_type: &str, body: Bytes) -> Result<Self, ApiError> {
        Ok(match kind {
            Kind::Edit => {
                let request = EditRequest::read(content_type, body).await?;
                request.check()?;
                Self::Edit(request)
            }
            Kind::Variation => {
                let request = VariationRequest::read(content_type, body).await?;
                request.check()?;
                Self::Variation(request)
            }
        })
    }

    fn edit(&self) -> &EditRequest {
        match self {
            Self::Edit(edit) => edit,
            Self::Variation(variation) => variation.edit(),
        }
    }

    fn resolve(&self, defaults: &ModelDefaults, limits: &ModelLimits) -> Result<Generation, ApiError> {
        match self {
            Self::Edit(edit) => edit.resolve(defaults, limits),
            Self::Variation(variation) => variation.resolve(defaults, limits),
        }
    }
}

pub(super) async fn answer(
    shared: &Shared,
    kind: Kind,
    counted: &mut Counted,
    headers: &HeaderMap,
    body: Body,
    begun: Begun,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let in_flight = shared.drain.enter().ok_or_else(draining)?;
    let (deadline, sender, snapshot_steps) = (deadline(headers, arrival)?, sender(headers)?, snapshot_steps(headers)?);
    let content_type = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let body = read_body(body, MAX_FORWARDED_EDIT_BODY).await?;
    let request = Request::read(kind, content_type, body).await?;
    let edit = request.edit();
    let (model, served) = named(&shared.engine.snapshot(), edit.generation.model.as_deref())?;
    let generation = request.resolve(&served.defaults, &served.limits)?;
    let way = edit.way(&served.tasks)?;
    way.model_calls(&generation)?;
    let output = writable(shared, &edit.generation)?;
    let sent = Sent { picture: edit.picture.clone(), mask: edit.mask.clone() };
    let streaming = edit.generation.streaming();
    let edit = Some(start(way, picture::decode(sent, generation.size).await?)?);
    let wish = Wish { model, generation, edit, output, streaming, snapshot_steps, begun, arrival, deadline, sender };
    draw(shared, wish, counted, in_flight).await
}

fn start(way: EditWay, decoded: picture::Decoded) -> Result<Edit, ApiError> {
    let picture::Decoded { picture, mask } = decoded;
    let way = match (way, mask) {
        (EditWay::Instruct { image_guidance_scale }, _) => Way::Instruct { image_guidance_scale },
        (EditWay::Control(options), _) => Way::Control(options),
        (EditWay::ImageToImage { strength }, _) => Way::ImageToImage { strength },
        (EditWay::Inpaint { strength }, Some(mask)) => Way::Inpaint { mask: Arc::new(mask), strength },
        (EditWay::Inpaint { .. }, None) => return Err(ApiError::internal("failed to read the mask")),
    };
    Ok(Edit { picture: Arc::new(picture), way })
}
