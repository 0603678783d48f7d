//! The answer as server-sent events: previews as the engine makes them, then each picture.
//! Owns the order of events and what is said when one fails; drawing and writing files are others' work.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use easel_api::error::ApiError;
use easel_api::images::{Background, EVENT_STREAM, EventKind, PictureEvent, StreamEvent, Streaming};
use futures::stream;

use super::render::{self, Rendering, apart};
use super::{Counted, Wish, refuse};
use crate::drain::InFlight;
use crate::engine::{DrawError, Drawn, Preview, PreviewReceiver, previews};
use crate::pipeline::{Picture, PictureRequest};
use crate::server::Shared;

/// One request whose pictures go out as they come. Dropping it cancels what is still being drawn.
struct Pictures {
    previews: PreviewReceiver,
    stage: Stage,
    rendering: Rendering,
    is_edit: bool,
    counted: Counted,
    _in_flight: InFlight,
}

enum Stage {
    Drawing(Pin<Box<dyn Future<Output = Result<Drawn, DrawError>> + Send>>),
    Drawn(Left),
    Ended,
}

/// Finished pictures that have not gone out.
struct Left {
    digest: String,
    pictures: VecDeque<(PictureRequest, Picture)>,
    /// Counted with the first picture.
    text_tokens: u64,
    picture_tokens: u64,
    /// Of one picture.
    image_tokens: u64,
    /// Said with the last picture.
    headers: HeaderMap,
}

/// The head is written with the first event, so that whatever fails before has its status.
pub(super) async fn answer(
    shared: &Shared,
    wish: Wish,
    streaming: Streaming,
    counted: Counted,
    in_flight: InFlight,
) -> Result<Response, ApiError> {
    let is_edit = wish.edit.is_some();
    let rendering = wish.rendering(shared);
    let (to, previews) = previews(streaming.partial_images);
    let (engine, request) = (shared.engine.clone(), wish.request(Some(to), None));
    let stage = Stage::Drawing(Box::pin(async move { engine.draw(request).await }));
    let mut pictures = Pictures { previews, stage, rendering, is_edit, counted, _in_flight: in_flight };
    let first = match pictures.next().await {
        Ok(first) => first,
        Err(error) => {
            pictures.counted.failed(&error);
            return Err(error);
        }
    };
    let rest = stream::unfold(pictures, |mut pictures| async move {
        let event = pictures.next_or_error().await?;
        Some((Ok::<_, std::convert::Infallible>(event), pictures))
    });
    let events = stream::StreamExt::chain(stream::iter(first.map(Ok)), rest);
    let head = [(header::CONTENT_TYPE, EVENT_STREAM), (header::CACHE_CONTROL, "no-cache")];
    Ok((head, Body::from_stream(events)).into_response())
}

impl Pictures {
    /// `None` at the end. After an error there is nothing more.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            match &mut self.stage {
                Stage::Drawing(drawing) => {
                    let drawn = tokio::select! {
                        biased; // a preview that waits goes before its picture
                        preview = self.previews.next() => return self.preview(preview).await.map(Some),
                        drawn = drawing => drawn,
                    };
                    self.stage = Stage::Ended;
                    let drawn = drawn.map_err(|error| refuse(&self.rendering.model, error))?;
                    self.stage = Stage::Drawn(Left::of(drawn)?);
                }
                Stage::Drawn(left) => {
                    if let Some((request, picture)) = left.pictures.pop_front() {
                        return self.finished(request, picture).await.map(Some);
                    }
                    self.stage = Stage::Ended;
                    self.counted.drawn();
                }
                Stage::Ended => return Ok(None),
            }
        }
    }

    /// As [`Self::next`], once there is no other way to tell of an error than an event.
    async fn next_or_error(&mut self) -> Option<Bytes> {
        match self.next().await {
            Ok(event) => event,
            Err(error) => {
                self.stage = Stage::Ended;
                self.counted.failed(&error);
                StreamEvent::failed(&error).to_wire().ok().map(Bytes::from)
            }
        }
    }

    async fn preview(&mut self, preview: Preview) -> Result<Bytes, ApiError> {
        let Preview { request, index, picture, digest } = preview;
        let kind = if self.is_edit { EventKind::EditPartial } else { EventKind::GenerationPartial };
        let (rendering, seed) = (self.rendering.clone(), request.seed);
        let b64_json = apart(move || rendering.preview(&request, &picture, &digest)).await?;
        let event = self.event(kind, seed, b64_json);
        wire(PictureEvent { background: Background::Opaque, partial_image_index: Some(index), ..event })
    }

    async fn finished(&mut self, request: PictureRequest, picture: Picture) -> Result<Bytes, ApiError> {
        let Stage::Drawn(left) = &mut self.stage else { return Err(ApiError::internal("a picture came too early")) };
        let (text_tokens, picture_tokens) =
            (std::mem::take(&mut left.text_tokens), std::mem::take(&mut left.picture_tokens));
        let usage = render::usage(text_tokens, picture_tokens, left.image_tokens);
        let trailers = left.pictures.is_empty().then(|| trailers(&left.headers));
        let (digest, rendering, seed) = (left.digest.clone(), self.rendering.clone(), request.seed);
        let b64_json = apart(move || rendering.finished(&request, &picture, &digest)).await?;
        let kind = if self.is_edit { EventKind::EditCompleted } else { EventKind::GenerationCompleted };
        wire(PictureEvent { usage: Some(usage), trailers, ..self.event(kind, seed, b64_json) })
    }

    fn event(&self, kind: EventKind, seed: u64, b64_json: String) -> PictureEvent {
        let Rendering { model: _, generation, output, finishing: _ } = &self.rendering;
        PictureEvent {
            kind,
            b64_json,
            created_at: render::now(),
            size: generation.picture_size,
            quality: generation.quality,
            background: output.background,
            output_format: output.format(),
            seed,
            partial_image_index: None,
            usage: None,
            trailers: None,
        }
    }
}

impl Left {
    fn of(drawn: Drawn) -> Result<Self, ApiError> {
        let headers = render::headers(&drawn)?;
        let Drawn { digest, pictures, timings: _, text_tokens, picture_tokens, image_tokens, warning: _ } = drawn;
        let image_tokens = image_tokens / pictures.len().max(1) as u64;
        let text_tokens = text_tokens.into();
        Ok(Self { digest, pictures: pictures.into(), text_tokens, picture_tokens, image_tokens, headers })
    }
}

fn trailers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

fn wire(event: PictureEvent) -> Result<Bytes, ApiError> {
    let wire = StreamEvent::Picture(event).to_wire();
    wire.map(Bytes::from).map_err(|_| ApiError::internal("failed to write an event"))
}
