//! What a WebP file says of its chunks, checked before a decoder believes it: `image-webp` 0.2 asks for as much memory as a
//! chunk is said to have, or as the header of a frame says, before it looks for the bytes. Decodes nothing.

use easel_api::images::MAX_PICTURE_PIXELS;

/// `RIFF`, a length, `WEBP`.
const FILE_HEAD: usize = 12;
/// A name and a length.
const CHUNK_HEAD: usize = 8;
/// Of a picture in an animation: where it is, how large, how long.
const ANIMATED_HEAD: usize = 16;

/// Whether all chunks lie within the file, and no picture in it is larger than one may be.
pub(super) fn is_sound(file: &[u8]) -> bool {
    file.get(FILE_HEAD..).is_some_and(are_sound)
}

fn are_sound(mut chunks: &[u8]) -> bool {
    while let Some((head, rest)) = chunks.split_at_checked(CHUNK_HEAD) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(content) = rest.get(..length) else { return false };
        let is_sound = match &head[..4] {
            b"VP8 " => is_small(content),
            b"ANMF" => content.get(ANIMATED_HEAD..).is_some_and(are_sound),
            _ => true,
        };
        if !is_sound {
            return false;
        }
        // Chunks begin at even places; the last may lack the byte that is between.
        chunks = rest.get(length + length % 2..).unwrap_or_default();
    }
    true
}

/// RFC 6386, 9.1: three bytes of a tag, three of a start code, and 14 bits for each side.
fn is_small(frame: &[u8]) -> bool {
    let Some([width, width_high, height, height_high]) = frame.get(6..10) else { return false };
    let side = |low: &u8, high: &u8| u64::from(u16::from_le_bytes([*low, *high]) & 0x3fff);
    side(width, width_high) * side(height, height_high) <= MAX_PICTURE_PIXELS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8], length: u32, content: &[u8]) -> Vec<u8> {
        [name, &length.to_le_bytes(), content].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [b"RIFF\0\0\0\0WEBP", &chunks.concat()[..]].concat()
    }

    #[test]
    fn a_chunk_that_ends_beyond_the_file_is_unsound() {
        assert!(is_sound(&file(&[chunk(b"VP8X", 3, &[0; 4]), chunk(b"EXIF", 5, &[0; 5])])));
        assert!(!is_sound(&file(&[chunk(b"VP8X", 4, &[0; 4]), chunk(b"EXIF", u32::MAX, &[0; 4])])));
        assert!(!is_sound(b"RIFF"));
    }

    #[test]
    fn a_frame_that_says_it_is_huge_is_unsound_alone_and_in_an_animation() {
        let frame = |side: u16| [&[0; 6][..], &side.to_le_bytes(), &side.to_le_bytes()].concat();
        let animated = |side| chunk(b"ANMF", 34, &[&[0; 16][..], &chunk(b"VP8 ", 10, &frame(side))].concat());
        for (side, wanted) in [(4096, true), (4097, false)] {
            assert_eq!(is_sound(&file(&[chunk(b"VP8 ", 10, &frame(side))])), wanted);
            assert_eq!(is_sound(&file(&[animated(side)])), wanted);
        }
    }
}
