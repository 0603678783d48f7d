use std::io::Cursor;

use easel_api::images::SamplerKind;
use image::{DynamicImage, ImageDecoder, ImageReader};

use super::*;

const ENCODINGS: [Encoding; 4] =
    [Encoding::Png, Encoding::Jpeg { quality: 90 }, Encoding::Webp { quality: 90 }, Encoding::LosslessWebp];

fn request(prompt: &str) -> PictureRequest {
    PictureRequest {
        prompt: prompt.into(),
        negative_prompt: String::new(),
        seed: 7,
        steps: 3,
        guidance_scale: 5.0,
        size: "48x32".parse().unwrap(),
        sampler: SamplerKind::Ddim,
        edit: None,
        adapters: Vec::new(),
    }
}

/// Smooth, so that what compression loses stays small.
fn picture() -> Picture {
    let size = request("").size;
    let at = |x: u32, y: u32| [(5 * x) as u8, (7 * y) as u8, (x + y) as u8];
    let rows = (0..size.height()).flat_map(|y| (0..size.width()).map(move |x| (x, y)));
    Picture { size, rgb: rows.flat_map(|(x, y)| at(x, y)).collect() }
}

/// The left half is the object.
fn mask() -> Mask {
    let size = request("").size;
    let rows = (0..size.height()).flat_map(|_| 0..size.width());
    Mask { alpha: rows.map(|x| if x < size.width() / 2 { 255 } else { 0 }).collect() }
}

fn written(encoding: Encoding, mask: Option<&Mask>, prompt: &str) -> Vec<u8> {
    let provenance = Provenance { model: "art/sdxl", digest: "sha256:0123456789abcdef" };
    encode(&picture(), mask, encoding, &request(prompt), &provenance).unwrap()
}

/// By a reader that is not ours: the packet and the pixels.
fn read(file: &[u8]) -> (String, DynamicImage) {
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format().unwrap();
    let mut decoder = reader.into_decoder().unwrap();
    let packet = decoder.xmp_metadata().unwrap().expect("a file says how it came to be");
    (String::from_utf8(packet).unwrap(), DynamicImage::from_decoder(decoder).unwrap())
}

#[test]
fn every_format_says_that_a_model_made_the_picture_and_how() {
    for encoding in ENCODINGS {
        let (packet, _) = read(&written(encoding, None, "a <cät>, 猫"));
        assert!(packet.contains("digitalsourcetype/trainedAlgorithmicMedia\""), "{encoding:?}: {packet}");
        assert!(packet.contains(">a &lt;cät&gt;, 猫\nSteps: 3, Sampler: DDIM"), "{encoding:?}: {packet}");
    }
}

#[test]
fn lossless_formats_keep_every_pixel_and_the_others_nearly() {
    for (encoding, allowed) in ENCODINGS.into_iter().zip([0, 24, 24, 0]) {
        let (_, image) = read(&written(encoding, None, "a cat"));
        assert!(!image.color().has_alpha(), "{encoding:?}");
        let found = image.into_rgb8().into_raw();
        assert_eq!(found.len(), picture().rgb.len(), "{encoding:?}");
        let worst = found.iter().zip(&picture().rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= allowed, "{encoding:?}: {worst}/255");
    }
}

#[test]
fn a_mask_becomes_transparency_in_png_and_webp() {
    for encoding in [Encoding::Png, Encoding::Webp { quality: 90 }, Encoding::LosslessWebp] {
        let (packet, image) = read(&written(encoding, Some(&mask()), "a cat"));
        assert!(packet.contains("trainedAlgorithmicMedia"), "{encoding:?}");
        let image = image.into_rgba8();
        let (left, right) = (image.get_pixel(4, 4).0, image.get_pixel(44, 4).0);
        assert_eq!((left[3], right[3]), (255, 0), "{encoding:?}");
        assert!(left[0].abs_diff(20) <= 8 && left[1].abs_diff(28) <= 8, "{encoding:?}: {left:?}");
    }
}

#[test]
fn a_lower_quality_is_a_smaller_file() {
    let jpeg = |quality| written(Encoding::Jpeg { quality }, None, "a cat").len();
    let webp = |quality| written(Encoding::Webp { quality }, None, "a cat").len();
    assert!(jpeg(0) < jpeg(50) && jpeg(50) < jpeg(100));
    assert!(webp(0) < webp(50) && webp(50) < webp(99));
}

/// Sixteen bits count a JPEG segment; longer text would make the file unreadable.
#[test]
fn a_prompt_too_long_for_jpegs_metadata_leaves_the_file_whole() {
    let long = "猫".repeat(32_000);
    for encoding in ENCODINGS {
        let (packet, image) = read(&written(encoding, None, &long));
        assert!(packet.contains("trainedAlgorithmicMedia"), "{encoding:?}");
        let is_jpeg = matches!(encoding, Encoding::Jpeg { .. });
        assert_eq!(packet.contains("猫"), !is_jpeg, "{encoding:?}");
        assert_eq!((image.width(), image.height()), (48, 32), "{encoding:?}");
    }
}

/// Byte by byte, for readers are lenient: the container's length, flags and sides.
#[test]
fn a_webp_file_is_framed_as_the_specification_says() {
    for (encoding, flags) in [(Encoding::LosslessWebp, 0x14), (Encoding::Webp { quality: 50 }, 0x14)] {
        let file = written(encoding, Some(&mask()), "a cat");
        let length = u32::from_le_bytes(file[4..8].try_into().unwrap());
        assert_eq!((&file[..4], length as usize + 8, &file[8..16]), (&b"RIFF"[..], file.len(), &b"WEBPVP8X"[..]));
        assert_eq!(file[16..30], [10, 0, 0, 0, flags, 0, 0, 0, 47, 0, 0, 31, 0, 0], "{encoding:?}");
        let (mut at, mut names) = (12, Vec::new());
        while at < file.len() {
            names.push(String::from_utf8(file[at..at + 4].to_vec()).unwrap());
            let length = u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize;
            at += 8 + length.next_multiple_of(2);
        }
        assert_eq!((at, names.last().map(String::as_str)), (file.len(), Some("XMP ")), "{names:?}");
    }
}
