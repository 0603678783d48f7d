//! Pictures as server-sent events: previews while they are drawn, each picture when it is finished.
//! Knows OpenAI's events and how one is written and read; does not know when they come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Background, OutputFormat, Quality, Usage};
use crate::ImageSize;
use crate::error::{ApiError, ErrorBody, ErrorEnvelope};

/// `content-type` of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// OpenAI's own bound.
pub const MAX_PARTIAL_IMAGES: u32 = 3;

/// How a request wants its pictures streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streaming {
    /// Previews of each picture, at most.
    pub partial_images: u32,
}

/// One event. A stream ends with the `completed` of its last picture or with an `error`; there is no `[DONE]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StreamEvent {
    Failed(ErrorEnvelope),
    Picture(PictureEvent),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PictureEvent {
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub b64_json: String,
    /// Seconds since 1970.
    pub created_at: u64,
    pub size: ImageSize,
    pub quality: Quality,
    /// Of this picture: previews are opaque.
    pub background: Background,
    pub output_format: OutputFormat,
    /// Extension: tells the pictures of one request apart, and draws this one again.
    pub seed: u64,
    /// Of a preview, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_image_index: Option<u32>,
    /// Of a finished picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Extension, in the stream's last event: the headers that only its end could give, such as `x-easel-cost-usd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailers: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    #[serde(rename = "image_generation.partial_image")]
    GenerationPartial,
    #[serde(rename = "image_generation.completed")]
    GenerationCompleted,
    #[serde(rename = "image_edit.partial_image")]
    EditPartial,
    #[serde(rename = "image_edit.completed")]
    EditCompleted,
}

/// What tells one event of a stream from the others: a pod that draws the request again sends them all again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct EventKey {
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub seed: u64,
    pub partial_image_index: Option<u32>,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GenerationPartial => "image_generation.partial_image",
            Self::GenerationCompleted => "image_generation.completed",
            Self::EditPartial => "image_edit.partial_image",
            Self::EditCompleted => "image_edit.completed",
        }
    }

    pub fn is_completed(self) -> bool {
        match self {
            Self::GenerationCompleted | Self::EditCompleted => true,
            Self::GenerationPartial | Self::EditPartial => false,
        }
    }
}

impl StreamEvent {
    pub fn failed(error: &ApiError) -> Self {
        Self::Failed(error.envelope())
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Failed(_) => "error",
            Self::Picture(event) => event.kind.as_str(),
        }
    }

    /// As it goes over the wire, the empty line at its end included.
    pub fn to_wire(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut wire = format!("event: {}\ndata: ", self.name()).into_bytes();
        serde_json::to_writer(&mut wire, self)?; // JSON has its line ends escaped
        wire.extend_from_slice(b"\n\n");
        Ok(wire)
    }

    /// Reads what [`Self::to_wire`] has written.
    pub fn of_wire(wire: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(data(wire))
    }
}

impl EventKey {
    /// Of an event over the wire, or the error that it is. Does not copy the picture.
    pub fn of_wire(wire: &[u8]) -> Result<Result<Self, ErrorBody>, serde_json::Error> {
        let data = data(wire);
        match serde_json::from_slice(data) {
            Ok(key) => Ok(Ok(key)),
            Err(error) => match serde_json::from_slice::<ErrorEnvelope>(data) {
                Ok(envelope) => Ok(Err(envelope.error)),
                Err(_) => Err(error),
            },
        }
    }
}

/// Where the first event of these bytes ends, if it is whole.
pub fn first_event(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 2)
}

fn data(wire: &[u8]) -> &[u8] {
    let mut lines = wire.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"data: ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn partial() -> PictureEvent {
        PictureEvent {
            kind: EventKind::GenerationPartial,
            b64_json: "aGk=".into(),
            created_at: 7,
            size: "64x32".parse().unwrap(),
            quality: Quality::Auto,
            background: Background::Opaque,
            output_format: OutputFormat::Png,
            seed: 11,
            partial_image_index: Some(1),
            usage: None,
            trailers: None,
        }
    }

    fn json_of(event: &StreamEvent) -> Value {
        serde_json::to_value(event).unwrap()
    }

    #[test]
    fn a_preview_has_the_fields_that_openais_document_names_and_the_seed() {
        let expected = json!({"type": "image_generation.partial_image", "b64_json": "aGk=", "created_at": 7,
            "size": "64x32", "quality": "auto", "background": "opaque", "output_format": "png", "seed": 11,
            "partial_image_index": 1});
        assert_eq!(json_of(&StreamEvent::Picture(partial())), expected);
    }

    #[test]
    fn a_finished_picture_has_usage_and_no_index() {
        let usage = Some(Usage::default());
        let kind = EventKind::EditCompleted;
        let event =
            json_of(&StreamEvent::Picture(PictureEvent { kind, partial_image_index: None, usage, ..partial() }));
        assert_eq!(event["type"], "image_edit.completed");
        assert_eq!(event["usage"]["total_tokens"], 0);
        assert_eq!(event.get("partial_image_index"), None);
    }

    #[test]
    fn an_event_reads_back_as_what_was_written() {
        let failed = StreamEvent::failed(&ApiError::internal("two\nlines"));
        for event in [StreamEvent::Picture(partial()), failed] {
            let wire = event.to_wire().unwrap();
            assert_eq!(first_event(&wire), Some(wire.len()), "{event:?}");
            assert_eq!(StreamEvent::of_wire(&wire).unwrap(), event);
        }
    }

    #[test]
    fn an_event_is_named_twice_and_its_key_is_found_without_its_picture() {
        let wire = StreamEvent::Picture(partial()).to_wire().unwrap();
        assert!(wire.starts_with(b"event: image_generation.partial_image\ndata: {"));
        let key = EventKey { kind: EventKind::GenerationPartial, seed: 11, partial_image_index: Some(1) };
        assert_eq!(EventKey::of_wire(&wire).unwrap(), Ok(key));
    }

    #[test]
    fn an_error_has_the_envelope_and_bytes_that_are_no_event_are_refused() {
        let wire = StreamEvent::failed(&ApiError::deadline("late")).to_wire().unwrap();
        assert!(wire.starts_with(b"event: error\ndata: {\"error\":"));
        let error = EventKey::of_wire(&wire).unwrap().unwrap_err();
        assert_eq!((error.message.as_str(), error.code.as_deref()), ("late", Some("deadline_exceeded")));
        assert!(EventKey::of_wire(b"data: {}\n\n").is_err());
        assert!(EventKey::of_wire(b"\n\n").is_err());
    }

    #[test]
    fn an_event_that_is_not_whole_has_no_end() {
        assert_eq!(first_event(b"event: error\ndata: {}\n"), None);
        assert_eq!(first_event(b"a\n\nb"), Some(3));
    }
}
