//! A picture as a client sends it: as a file, or in JSON as a `data:` URL.
//! Knows the first bytes of picture files; decodes no pixel, and fetches nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::unsupported;
use crate::error::ApiError;
use crate::images::invalid_value;

/// A picture as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct PictureFile {
    pub format: PictureFormat,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    Png,
    Jpeg,
    Webp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageReference {
    image_url: Option<String>,
    file_id: Option<String>,
}

impl PictureFile {
    /// What the bytes say that they are decides, not a file's name or a declared type.
    pub fn new(param: &str, bytes: Bytes) -> Result<Self, ApiError> {
        let format = match &bytes[..] {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => PictureFormat::Png,
            [0xff, 0xd8, 0xff, ..] => PictureFormat::Jpeg,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => PictureFormat::Webp,
            _ => return Err(ApiError::invalid(param, "invalid_image", "the picture is not a PNG, JPEG or WebP file")),
        };
        Ok(Self { format, bytes })
    }

    pub(super) fn to_data_url(&self) -> String {
        let kind = match self.format {
            PictureFormat::Png => "png",
            PictureFormat::Jpeg => "jpeg",
            PictureFormat::Webp => "webp",
        };
        let mut url = format!("data:image/{kind};base64,");
        STANDARD.encode_string(&self.bytes, &mut url);
        url
    }
}

/// A log line has no room for a picture.
impl std::fmt::Debug for PictureFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PictureFile({:?}, {} bytes)", self.format, self.bytes.len())
    }
}

impl ImageReference {
    /// `param` is its place in the body. `None` where nothing is referred to.
    pub(super) fn read(self, param: &str) -> Result<Option<PictureFile>, ApiError> {
        let Self { image_url, file_id } = self;
        if file_id.is_some() {
            let message = "files are not stored here; send the picture as a data: URL";
            return Err(unsupported(&format!("{param}.file_id"), message));
        }
        image_url.map(|url| from_data_url(&format!("{param}.image_url"), &url)).transpose()
    }
}

fn from_data_url(param: &str, url: &str) -> Result<PictureFile, ApiError> {
    let Some(data) = url.strip_prefix("data:") else {
        let message = "no address is fetched for a request: send the picture itself, as data:image/png;base64,…";
        return Err(unsupported(param, message));
    };
    let (_, encoded) = data
        .split_once(";base64,")
        .ok_or_else(|| invalid_value(param, "a data: URL must be like data:image/png;base64,…"))?;
    let bytes = STANDARD.decode(encoded).map_err(|error| invalid_value(param, format!("it is not base64: {error}")))?;
    PictureFile::new(param, bytes.into())
}
