//! How a pod answers a caller that holds the request for it: the response in frames, and between them snapshots of the
//! pictures on their way. Knows bytes and their bounds; does not know what a snapshot means, nor who sends it where.
//!
//! A frame is its kind (1 byte), the length of what follows (4 bytes, big endian), and that. An answer is any number of
//! [`Frame::Snapshot`]s, then [`Frame::Head`] and [`Frame::Body`]s and [`Frame::End`]; or it stops with
//! [`Frame::Moved`] before its end, and the request goes on elsewhere from its newest snapshots. A connection that
//! breaks before either means that the pod is lost. A hand-over to a pod is [`Frame::Request`], [`Frame::Body`]s,
//! [`Frame::Snapshot`]s and [`Frame::End`].

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Of an answer in frames, and of a hand-over.
pub const FRAMES_MEDIA_TYPE: &str = "application/vnd.easel.frames";
/// With a number K: the caller reads frames, and wants a snapshot every K model calls of a picture; 0: only when the pod
/// goes.
pub const SNAPSHOT_STEPS_HEADER: &str = "x-easel-snapshot-steps";
/// Longer bodies are several frames.
pub const MAX_BODY_FRAME: usize = 256 << 10;
/// The latents of 4096 x 4096 pixels with 16 channels in f32, four times: a solver remembers up to three more.
pub const MAX_SNAPSHOT: usize = (64 << 20) + (64 << 10);
const MAX_HEAD: usize = 64 << 10;
/// Kind and length.
const PREFIX: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The response's status and headers.
    Head(Head),
    /// What a hand-over is of.
    Request(Request),
    Body(Bytes),
    Snapshot(Snapshot),
    /// The pod goes; nothing comes after it.
    Moved,
    /// Nothing is missing.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
}

/// The request that the pictures of a hand-over belong to. Its body follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub path: String,
    pub content_type: String,
}

/// Takes the place of an earlier one of the same picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the picture in its request, from 0.
    pub picture: u32,
    /// A file that only pods read.
    pub bytes: Bytes,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({}, {} bytes)", self.picture, self.bytes.len())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("a frame of kind {kind} says that it has {length} bytes, and {limit} are the most")]
    TooLong { kind: u8, length: usize, limit: usize },
    #[error("a frame of kind {0} is too short")]
    TooShort(u8),
    #[error("a frame's JSON can't be read: {0}")]
    Json(String),
}

impl Frame {
    const HEAD: u8 = 1;
    const REQUEST: u8 = 2;
    const BODY: u8 = 3;
    const SNAPSHOT: u8 = 4;
    const MOVED: u8 = 5;
    const END: u8 = 6;

    /// As it goes over the wire. A body longer than [`MAX_BODY_FRAME`] is the caller's to split ([`body_frames`]).
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Head(head) => written(Self::HEAD, &[&json(head)]),
            Self::Request(request) => written(Self::REQUEST, &[&json(request)]),
            Self::Body(bytes) => written(Self::BODY, &[bytes]),
            Self::Snapshot(Snapshot { picture, bytes }) => written(Self::SNAPSHOT, &[&picture.to_be_bytes(), bytes]),
            Self::Moved => written(Self::MOVED, &[]),
            Self::End => written(Self::END, &[]),
        }
    }

    fn decode(kind: u8, mut payload: Bytes) -> Result<Self, FrameError> {
        match kind {
            Self::HEAD => read(&payload).map(Self::Head),
            Self::REQUEST => read(&payload).map(Self::Request),
            Self::BODY => Ok(Self::Body(payload)),
            Self::SNAPSHOT if payload.len() < 4 => Err(FrameError::TooShort(kind)),
            Self::SNAPSHOT => {
                let picture = payload.get_u32();
                Ok(Self::Snapshot(Snapshot { picture, bytes: payload }))
            }
            Self::MOVED => Ok(Self::Moved),
            Self::END => Ok(Self::End),
            kind => Err(FrameError::Kind(kind)),
        }
    }
}

/// The body in frames, none longer than allowed.
pub fn body_frames(body: &Bytes) -> impl Iterator<Item = Frame> {
    let starts = (0..body.len()).step_by(MAX_BODY_FRAME);
    starts.map(|start| Frame::Body(body.slice(start..body.len().min(start + MAX_BODY_FRAME))))
}

/// Reads frames from bytes that come in pieces of any size. Holds one frame at most, and no more than has come.
#[derive(Debug, Default)]
pub struct Decoder {
    come: BytesMut,
    /// Bytes of a frame that is not wanted, and has not come yet.
    skipped: usize,
}

impl Decoder {
    pub fn push(&mut self, piece: &[u8]) {
        let skipped = self.skipped.min(piece.len());
        self.skipped -= skipped;
        self.come.extend_from_slice(&piece[skipped..]);
    }

    /// The bytes that the next frame will take, if it is a snapshot and its length has come: whoever has no room for
    /// it can [`Self::skip`] it.
    pub fn coming_snapshot(&self) -> Option<usize> {
        if self.come.len() < PREFIX || self.come[0] != Frame::SNAPSHOT {
            return None;
        }
        Some((&self.come[1..PREFIX]).get_u32() as usize).filter(|length| *length <= 4 + MAX_SNAPSHOT)
    }

    /// Lets the frame that has begun go by, and holds none of it. Does nothing before its length has come.
    pub fn skip(&mut self) {
        if self.come.len() < PREFIX {
            return;
        }
        let whole = PREFIX + (&self.come[1..PREFIX]).get_u32() as usize;
        self.skipped = whole.saturating_sub(self.come.len());
        self.come.advance(whole.min(self.come.len()));
    }

    /// The next whole frame. After an error nothing that follows can be understood.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.come.len() < PREFIX {
            return Ok(None);
        }
        let (kind, mut length) = (self.come[0], &self.come[1..PREFIX]);
        let (length, limit) = (length.get_u32() as usize, limit(kind)?);
        if length > limit {
            return Err(FrameError::TooLong { kind, length, limit });
        }
        if self.come.len() < PREFIX + length {
            return Ok(None);
        }
        self.come.advance(PREFIX);
        Frame::decode(kind, self.come.split_to(length).freeze()).map(Some)
    }

    /// Whether a frame has begun that is not whole.
    pub fn is_within_frame(&self) -> bool {
        !self.come.is_empty() || self.skipped > 0
    }
}

fn limit(kind: u8) -> Result<usize, FrameError> {
    match kind {
        Frame::HEAD | Frame::REQUEST => Ok(MAX_HEAD),
        Frame::BODY => Ok(MAX_BODY_FRAME),
        Frame::SNAPSHOT => Ok(4 + MAX_SNAPSHOT),
        Frame::MOVED | Frame::END => Ok(0),
        kind => Err(FrameError::Kind(kind)),
    }
}

fn written(kind: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(kind);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX)); // beyond every limit, which the reader says
    for part in parts {
        bytes.put_slice(part);
    }
    bytes.freeze()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default() // maps of strings and numbers can't fail
}

fn read<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(bytes).map_err(|error| FrameError::Json(error.to_string()))
}

#[cfg(test)]
mod tests;
