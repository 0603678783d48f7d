//! Writes a finished picture as the file that was asked for, with how it was drawn in its metadata.
//! Chooses the format, and each format knows its own bytes; neither knows how the picture came to be.

mod jpeg;
mod webp;
mod xmp;

use easel_api::images::Encoding;

use crate::cut_out::Mask;
use crate::pipeline::{Picture, PictureRequest};
use crate::png::{self, PngError, Provenance};
pub(crate) use xmp::packet as xmp_packet;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Png(#[from] PngError),
    #[error("failed to write the picture as JPEG")]
    Jpeg(#[from] image::ImageError),
    #[error("failed to write the picture as WebP: libwebp gave nothing back")]
    Webp,
}

/// The bytes of a file, 8 bits a channel. A mask becomes transparency, except in JPEG, which has none.
pub fn encode(
    picture: &Picture,
    mask: Option<&Mask>,
    encoding: Encoding,
    request: &PictureRequest,
    provenance: &Provenance<'_>,
) -> Result<Vec<u8>, FileError> {
    let parameters = || png::parameters(request, provenance);
    match encoding {
        Encoding::Png => Ok(png::encode(picture, mask, request, provenance)?),
        Encoding::Jpeg { quality } => Ok(jpeg::encode(picture, quality, &parameters())?),
        Encoding::Webp { quality } => webp::encode(picture, mask, Some(quality), &parameters()),
        Encoding::LosslessWebp => webp::encode(picture, mask, None, &parameters()),
    }
}

#[cfg(test)]
mod tests;
