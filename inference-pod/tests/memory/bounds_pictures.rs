//! Files of pictures that unpack to more than they say, or say more than there is.

use std::path::Path;

use crate::counting::turn;
use crate::pod::{assert_drawn, assert_refused, form, world};

const IMAGE: &str = "content-disposition: form-data; name=\"image\"; filename=\"p\"";
const SIZE: &str = "content-disposition: form-data; name=\"size\"";

/// A PNG of this header and these chunks.
fn png(width: u32, height: u32, chunks: &[(png::chunk::ChunkType, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    for (kind, content) in chunks {
        writer.write_chunk(*kind, content).unwrap();
    }
    drop(writer);
    bytes
}

fn seed(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/picture").join(name)).unwrap()
}

/// 64 MiB of zeros in 64 KiB, packed as PNG packs.
fn bomb() -> Vec<u8> {
    let file = seed("bomb.png");
    let at = file.windows(4).position(|window| window == b"IDAT").unwrap();
    let length = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    file[at + 4..at + 4 + length].to_vec()
}

/// At least so many zeros, packed as zlib does it: a zero, then "258 times the byte before" in 13 bits each.
fn zeros(count: usize) -> Vec<u8> {
    let begin = [true, true, false, false, false, true, true, false, false, false, false];
    let again = [true, true, false, false, false, true, false, true, false, false, false, false, false];
    let bits = begin.into_iter().chain(again.into_iter().cycle().take(again.len() * count.div_ceil(258)));
    let mut packed = vec![0x78, 0x01];
    for (index, bit) in bits.enumerate() {
        if index % 8 == 0 {
            packed.push(0);
        }
        *packed.last_mut().unwrap() |= u8::from(bit) << (index % 8);
    }
    packed
}

#[tokio::test]
async fn a_small_file_of_a_huge_picture_costs_next_to_nothing() {
    let (turn, world) = (turn().await, world().await);
    let huge = png(30_000, 30_000, &[(png::chunk::IDAT, &bomb())]);
    assert_refused(&turn, &world, form(&[(IMAGE, &huge)]), "30000x30000", 4).await;
}

#[tokio::test]
async fn what_is_packed_beyond_the_pixels_is_not_unpacked() {
    let (turn, world) = (turn().await, world().await);
    assert_drawn(&turn, &world, form(&[(IMAGE, &seed("bomb.png"))]), 4).await;
}

/// A GiB of it in 7 MB. The decoder stops at its bound, and draws without the profile.
#[tokio::test]
async fn a_colour_profile_is_not_unpacked_without_end() {
    let (turn, world) = (turn().await, world().await);
    let profile = [b"a\0\0", &zeros(1 << 30)[..]].concat();
    let coloured = png(8, 8, &[(png::chunk::iCCP, &profile), (png::chunk::IDAT, &bomb())]);
    assert_drawn(&turn, &world, form(&[(IMAGE, &coloured)]), 160).await;
}

/// Between the two passes of a resize down the columns first it would have 8 GB.
#[tokio::test]
async fn a_wide_picture_of_few_rows_is_resized_within_bounds() {
    let (turn, world) = (turn().await, world().await);
    let mut wide = Vec::new();
    let mut encoder = png::Encoder::new(&mut wide, 1 << 20, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&vec![200; 1 << 20]).unwrap();
    assert_drawn(&turn, &world, form(&[(IMAGE, &wide), (SIZE, b"256x512")]), 32).await;
}

#[tokio::test]
async fn a_file_that_is_cut_off_costs_no_more_than_its_pixels() {
    let (turn, world) = (turn().await, world().await);
    let cut = png(4096, 4096, &[(png::chunk::IDAT, &bomb()[..1000])]);
    assert_refused(&turn, &world, form(&[(IMAGE, &cut)]), "can't be decoded", 48).await;
}

#[tokio::test]
async fn a_webp_whose_parts_say_that_they_are_huge_is_refused() {
    let (turn, world) = (turn().await, world().await);
    let chunk = |name: &[u8], length: u32, content: &[u8]| [name, &length.to_le_bytes(), content].concat();
    let canvas = chunk(b"VP8X", 10, &[8, 0, 0, 0, 7, 0, 0, 7, 0, 0]);
    let frame = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f, 0, 0];
    for part in [chunk(b"EXIF", u32::MAX, b"Exif"), chunk(b"VP8 ", 12, &frame)] {
        let webp =
            [&chunk(b"RIFF", 1 << 16, b"WEBP")[..], &canvas, &part, &chunk(b"VP8L", 5, &[0x2f, 7, 0xc0, 1, 0, 0])]
                .concat();
        assert_refused(&turn, &world, form(&[(IMAGE, &webp)]), "cut off, or what it says", 4).await;
    }
}
