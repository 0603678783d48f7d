//! JPEG: baseline, with the XMP packet in a segment of its own.
//! Knows how segments follow each other; the compression is the library's.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageResult};

use super::xmp;
use crate::pipeline::Picture;

/// In front of the packet: Adobe's XMP specification, part 3, 1.1.3.
const XMP_MARK: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const APP0: [u8; 2] = [0xff, 0xe0];
const APP1: [u8; 2] = [0xff, 0xe1];
/// A segment's length has two bytes and counts itself.
const LONGEST_PACKET: usize = 0xffff - 2 - XMP_MARK.len();

/// `quality` is 0 to 100; the library's lowest is 1.
pub(super) fn encode(picture: &Picture, quality: u8, parameters: &str) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(picture.rgb.len() / 4);
    let (width, height) = (picture.size.width(), picture.size.height());
    JpegEncoder::new_with_quality(&mut bytes, quality.max(1)).encode(
        &picture.rgb,
        width,
        height,
        ExtendedColorType::Rgb8,
    )?;
    let packet = xmp::packet(parameters, LONGEST_PACKET);
    let at = after_jfif(&bytes);
    bytes.splice(at..at, segment(packet.as_bytes()));
    Ok(bytes)
}

fn segment(packet: &[u8]) -> Vec<u8> {
    let length = (2 + XMP_MARK.len() + packet.len()) as u16; // `LONGEST_PACKET` fits
    [&APP1[..], &length.to_be_bytes(), XMP_MARK, packet].concat()
}

/// JFIF's own segment must be the first, if it is there.
fn after_jfif(file: &[u8]) -> usize {
    let start = 2; // of the file's mark
    match file.get(start..start + 4) {
        Some([a, b, high, low]) if [*a, *b] == APP0 => start + 2 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => start,
    }
}
