//! WebP: lossy or lossless by libwebp, in the extended container, which has room for the XMP packet.
//! Knows the container's chunks; the compression is the library's.

use std::ffi::c_int;

use super::{FileError, xmp};
use crate::cut_out::Mask;
use crate::pipeline::Picture;

/// Google's WebP container specification, "Extended File Format".
const EXTENDED: [u8; 4] = *b"VP8X";
const HAS_XMP: u8 = 0b0000_0100;
const HAS_ALPHA: u8 = 0b0001_0000;
/// `RIFF`, the length of the rest, `WEBP`.
const RIFF_HEADER: usize = 12;

/// Without a quality: lossless.
pub(super) fn encode(
    picture: &Picture,
    mask: Option<&Mask>,
    quality: Option<u8>,
    parameters: &str,
) -> Result<Vec<u8>, FileError> {
    let (width, height) = (picture.size.width(), picture.size.height());
    let rgba = mask.map(|mask| mask.rgba(picture));
    let simple = match &rgba {
        Some(rgba) => compress(rgba, Channels::Rgba, width, height, quality),
        None => compress(&picture.rgb, Channels::Rgb, width, height, quality),
    };
    let simple = simple.ok_or(FileError::Webp)?;
    let flags = HAS_XMP | if rgba.is_some() { HAS_ALPHA } else { 0 };
    Ok(extended(&simple, flags, width, height, xmp::packet(parameters, usize::MAX).as_bytes()))
}

/// The same picture with a header that announces the packet, and the packet behind it.
fn extended(simple: &[u8], flags: u8, width: u32, height: u32, packet: &[u8]) -> Vec<u8> {
    let mut header = [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Sides less one, in three bytes each.
    header[4..7].copy_from_slice(&(width - 1).to_le_bytes()[..3]);
    header[7..].copy_from_slice(&(height - 1).to_le_bytes()[..3]);
    let mut chunks = chunk(EXTENDED, &header);
    chunks.extend_from_slice(picture_chunks(simple));
    chunks.extend(chunk(*b"XMP ", packet));
    let length = (4 + chunks.len()) as u32; // at most a picture's bytes and a prompt's
    [&b"RIFF"[..], &length.to_le_bytes(), b"WEBP", &chunks].concat()
}

/// Behind the file's header, and behind an extended header that libwebp has written for its own sake.
fn picture_chunks(file: &[u8]) -> &[u8] {
    let chunks = file.get(RIFF_HEADER..).unwrap_or_default();
    match chunks.strip_prefix(&EXTENDED) {
        Some(rest) => rest.get(4 + 10..).unwrap_or_default(),
        None => chunks,
    }
}

/// Padded to an even length, which the length does not count.
fn chunk(name: [u8; 4], content: &[u8]) -> Vec<u8> {
    let mut bytes = [&name[..], &(content.len() as u32).to_le_bytes(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Channels {
    Rgb = 3,
    Rgba = 4,
}

/// A file in the simple format; nothing when libwebp can't (memory, more than 16,383 pixels on a side).
#[allow(unsafe_code)]
fn compress(pixels: &[u8], channels: Channels, width: u32, height: u32, quality: Option<u8>) -> Option<Vec<u8>> {
    let row = channels as u32 * width;
    if pixels.len() as u64 != u64::from(row) * u64::from(height) {
        return None;
    }
    let [width, height, stride] = [width, height, row].map(c_int::try_from);
    let (width, height, stride) = (width.ok()?, height.ok()?, stride.ok()?);
    let (pixels, mut output) = (pixels.as_ptr(), std::ptr::null_mut::<u8>());
    // SAFETY: `pixels` holds `height` rows of `stride` bytes, as was checked, and lives throughout. libwebp sets `output`
    // to memory of its own that holds as many bytes as it returns, or leaves it null and returns 0; it keeps neither.
    let length = unsafe {
        match (channels, quality) {
            (Channels::Rgb, Some(quality)) => {
                libwebp_sys::WebPEncodeRGB(pixels, width, height, stride, quality.into(), &raw mut output)
            }
            (Channels::Rgba, Some(quality)) => {
                libwebp_sys::WebPEncodeRGBA(pixels, width, height, stride, quality.into(), &raw mut output)
            }
            (Channels::Rgb, None) => libwebp_sys::WebPEncodeLosslessRGB(pixels, width, height, stride, &raw mut output),
            (Channels::Rgba, None) => {
                libwebp_sys::WebPEncodeLosslessRGBA(pixels, width, height, stride, &raw mut output)
            }
        }
    };
    if output.is_null() {
        return None;
    }
    // SAFETY: `output` holds `length` bytes that libwebp has written; they are copied before they are freed, once.
    let file = unsafe {
        let file = std::slice::from_raw_parts(output, length).to_vec();
        libwebp_sys::WebPFree(output.cast());
        file
    };
    (!file.is_empty()).then_some(file)
}
