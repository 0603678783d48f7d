//! Makes pixels of a picture that a client sent: decoded within bounds, upright, on white, of the size that is asked.
//! Knows picture files; does not know what becomes of them.

mod webp;

use std::io::Cursor;

use easel_api::ImageSize;
use easel_api::error::ApiError;
use easel_api::images::{MAX_PICTURE_PIXELS, PictureFile, PictureFormat};
use image::imageops::{FilterType, resize, rotate90, rotate270};
use image::metadata::Orientation;
use image::{
    DynamicImage, GenericImageView, GrayImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, ImageResult,
    Limits, Luma, Pixel, Rgb, RgbImage,
};
use tokio::sync::Semaphore;

use crate::pipeline::{Mask, Picture};

/// Each holds the decoded picture and a copy or two of it.
static DECODING: Semaphore = Semaphore::const_new(2);
/// Of one decoder: 16 bits of four channels for the largest picture, and as much beside.
const MAX_MEMORY: u64 = 16 * MAX_PICTURE_PIXELS;
/// Of what stands beside the pixels, such as a colour profile, which is unpacked before the size is known.
const MAX_EXTRA_MEMORY: u64 = 64 << 20;
/// What diffusers resizes with too.
const FILTER: FilterType = FilterType::Lanczos3;
/// Of 255: from here on a mask asks for a new pixel. diffusers 0.42.1, `image_processor.py`, `binarize`.
const HALF: u8 = 128;

/// The files of one request.
pub(super) struct Sent {
    pub(super) picture: PictureFile,
    /// As large as the picture.
    pub(super) mask: Option<PictureFile>,
}

/// Of the size that is drawn.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) picture: Picture,
    pub(super) mask: Option<Mask>,
}

/// Takes as long as a step, so it has a thread of its own.
pub(super) async fn decode(sent: Sent, size: ImageSize) -> Result<Decoded, ApiError> {
    let place = DECODING.acquire().await.map_err(|_| ApiError::internal("failed to decode the picture"))?;
    let decoded = tokio::task::spawn_blocking(move || decode_now(&sent, size)).await;
    drop(place);
    decoded.map_err(|_| ApiError::internal("failed to decode the picture"))?
}

/// For `fuzz/`: a picture of exactly this size, or the client's fault.
#[cfg(fuzzing)]
pub(in crate::server) fn decode_alone(file: &PictureFile, size: ImageSize) -> Result<Picture, ApiError> {
    decode_now(&Sent { picture: file.clone(), mask: None }, size).map(|decoded| decoded.picture)
}

fn decode_now(sent: &Sent, size: ImageSize) -> Result<Decoded, ApiError> {
    let picture = read(&sent.picture, "image")?;
    let mask = sent.mask.as_ref().map(|file| read_mask(file, picture.dimensions(), size)).transpose()?;
    Ok(Decoded { picture: Picture { size, rgb: fitted(on_white(picture), size).into_raw() }, mask })
}

/// `param` is the field that the file came in.
fn read(file: &PictureFile, param: &str) -> Result<DynamicImage, ApiError> {
    let format = match file.format {
        PictureFormat::Png => ImageFormat::Png,
        PictureFormat::Jpeg => ImageFormat::Jpeg,
        PictureFormat::Webp => ImageFormat::WebP,
    };
    let invalid = |error| invalid(param, &format!("the picture can't be decoded: {error}"));
    if format == ImageFormat::WebP && !webp::is_sound(&file.bytes) {
        return Err(self::invalid(param, "the picture is cut off, or what it says of its parts is wrong"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(&file.bytes[..]), format);
    reader.limits(limits(MAX_EXTRA_MEMORY));
    let decoder = reader.into_decoder().map_err(invalid)?;
    // The header says how large it is: a small file of a huge picture costs no memory.
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PICTURE_PIXELS {
        let message = format!("the picture is {width}x{height}; it may have {MAX_PICTURE_PIXELS} pixels");
        return Err(self::invalid(param, &message));
    }
    upright(decoder).map_err(invalid)
}

fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(bytes);
    limits
}

/// What is transparent in the file shall be drawn anew, as in OpenAI's document.
fn read_mask(file: &PictureFile, of: (u32, u32), size: ImageSize) -> Result<Mask, ApiError> {
    let mask = read(file, "mask")?;
    let invalid = |message: &str| Err(invalid("mask", message));
    if mask.dimensions() != of {
        let ((width, height), (wanted_width, wanted_height)) = (mask.dimensions(), of);
        return invalid(&format!(
            "the mask is {width}x{height} and the picture {wanted_width}x{wanted_height}: make them equal"
        ));
    }
    if !mask.color().has_alpha() {
        return invalid("the mask has no transparency: make transparent what shall be drawn anew");
    }
    let alpha = mask.into_rgba8();
    let (width, height) = alpha.dimensions();
    let edited = GrayImage::from_fn(width, height, |x, y| Luma([255 - alpha.get_pixel(x, y).0[3]]));
    let edited: Vec<bool> = fitted(edited, size).pixels().map(|pixel| pixel.0[0] >= HALF).collect();
    if !edited.contains(&true) {
        return invalid("the mask is transparent nowhere: make transparent what shall be drawn anew");
    }
    Ok(Mask { size, edited })
}

/// Cameras store pictures as the sensor lies, and say in the file how to turn them.
fn upright(mut decoder: impl ImageDecoder) -> ImageResult<DynamicImage> {
    decoder.set_limits(limits(MAX_MEMORY))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    let (width, height) = image.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u32::from);
        Rgb([red, green, blue].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

/// Stretched if the sides have another ratio: nothing is cut off.
fn fitted<P: Pixel<Subpixel = u8> + 'static>(
    image: ImageBuffer<P, Vec<u8>>,
    size: ImageSize,
) -> ImageBuffer<P, Vec<u8>> {
    if image.dimensions() == (size.width(), size.height()) {
        return image;
    }
    resized(&image, size, MAX_PICTURE_PIXELS)
}

/// `resize` goes down the columns first, and what is between its two passes has 16 bytes a pixel: a wide picture of few rows
/// would become gigabytes. Beyond `most` pixels the picture is turned. Of a picture with P pixels for a size with S, what
/// lies between the passes and what would if it were turned are P * S, multiplied: so the lesser is at most the larger of
/// P and S, and that is at most `MAX_PICTURE_PIXELS`.
fn resized<P: Pixel<Subpixel = u8> + 'static>(
    image: &ImageBuffer<P, Vec<u8>>,
    size: ImageSize,
    most: u64,
) -> ImageBuffer<P, Vec<u8>> {
    let (width, height) = (size.width(), size.height());
    if u64::from(image.width()) * u64::from(height) <= most {
        return resize(image, width, height, FILTER);
    }
    rotate270(&resize(&rotate90(image), height, width, FILTER))
}

const _: () = assert!(ImageSize::MAX_SIDE as u64 * ImageSize::MAX_SIDE as u64 <= MAX_PICTURE_PIXELS);

fn invalid(param: &str, message: &str) -> ApiError {
    ApiError::invalid(param, "invalid_image", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgba;

    fn written(image: &DynamicImage, format: ImageFormat) -> PictureFile {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        PictureFile::new("image", bytes.into_inner().into()).unwrap()
    }

    fn decoded(file: &PictureFile, size: &str) -> Result<Picture, ApiError> {
        let sent = Sent { picture: file.clone(), mask: None };
        decode_now(&sent, size.parse().unwrap()).map(|decoded| decoded.picture)
    }

    fn masked(mask: &DynamicImage, size: &str) -> Result<Mask, ApiError> {
        let [picture, mask] = [&clear(255), mask].map(|image| written(image, ImageFormat::Png));
        let sent = Sent { picture, mask: Some(mask) };
        decode_now(&sent, size.parse().unwrap()).map(|decoded| decoded.mask.unwrap())
    }

    /// Transparent in its left half.
    fn half() -> ImageBuffer<Rgba<u8>, Vec<u8>> {
        ImageBuffer::from_fn(32, 16, |x, _| Rgba([9, 9, 9, if x < 16 { 0 } else { 255 }]))
    }

    #[test]
    fn what_is_transparent_in_a_mask_is_drawn_anew_at_every_size() {
        for size in ["32x16", "64x48"] {
            let mask = masked(&DynamicImage::ImageRgba8(half()), size).unwrap();
            let width = mask.size.width() as usize;
            for (index, edited) in mask.edited.iter().enumerate() {
                assert_eq!(*edited, index % width < width / 2, "{size} {index}");
            }
        }
    }

    #[test]
    fn a_mask_that_says_nothing_is_refused_with_how_to_mend_it() {
        let small = ImageBuffer::from_pixel(16, 16, Rgba([0, 0, 0, 0]));
        for (mask, word) in [
            (DynamicImage::ImageRgba8(small), "16x16 and the picture 32x16"),
            (DynamicImage::ImageRgb8(clear(0).into_rgb8()), "has no transparency"),
            (clear(255), "transparent nowhere"),
        ] {
            let error = masked(&mask, "32x16").unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some("mask")));
            assert!(error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn a_picture_that_is_turned_to_be_resized_comes_out_the_same() {
        let image = RgbImage::from_fn(48, 20, |x, y| Rgb([(x * 5) as u8, (y * 12) as u8, ((x * y) % 251) as u8]));
        for size in ["32x16", "64x96"] {
            let size = size.parse().unwrap();
            let [plain, turned] = [u64::MAX, 0].map(|most| resized(&image, size, most));
            let worst = plain.iter().zip(turned.iter()).map(|(plain, turned)| plain.abs_diff(*turned)).max();
            assert!(worst <= Some(1), "{size}: {worst:?}");
        }
    }

    fn clear(alpha: u8) -> DynamicImage {
        DynamicImage::ImageRgba8(ImageBuffer::from_pixel(32, 16, Rgba([200, 0, 100, alpha])))
    }

    #[test]
    fn a_picture_of_the_right_size_is_taken_pixel_by_pixel() {
        let image = RgbImage::from_fn(32, 16, |x, y| Rgb([x as u8, y as u8, 7]));
        let file = written(&DynamicImage::ImageRgb8(image.clone()), ImageFormat::Png);
        assert_eq!(decoded(&file, "32x16").unwrap().rgb, image.into_raw());
    }

    #[test]
    fn what_is_transparent_lies_on_white() {
        for (alpha, expected) in [(0, [255, 255, 255]), (255, [200, 0, 100]), (51, [244, 204, 224])] {
            let picture = decoded(&written(&clear(alpha), ImageFormat::Png), "32x16").unwrap();
            assert_eq!(picture.rgb[..3], expected, "{alpha}");
        }
    }

    #[test]
    fn png_jpeg_and_webp_are_read_and_brought_to_size() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let file = written(&DynamicImage::ImageRgb8(clear(255).into_rgb8()), format);
            let picture = decoded(&file, "64x48").unwrap();
            assert_eq!(picture.rgb.len(), 64 * 48 * 3);
            let off = |(found, wanted): (&u8, u8)| found.abs_diff(wanted);
            let worst = picture.rgb[..3].iter().zip([200, 0, 100]).map(off).max().unwrap();
            assert!(worst <= 4, "{format:?}: {:?}", &picture.rgb[..3]);
        }
    }

    #[test]
    fn a_file_that_ends_early_is_refused_by_name() {
        let file = written(&clear(255), ImageFormat::Png);
        let cut = PictureFile { bytes: file.bytes.slice(..40), ..file };
        let error = decoded(&cut, "32x16").unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some("image")));
    }

    /// Those of the fuzz target, made by Pillow 12.
    fn seed(name: &str) -> PictureFile {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/picture").join(name);
        PictureFile::new("image", std::fs::read(path).unwrap().into()).unwrap()
    }

    fn assert_about(found: &[u8], expected: [u8; 3]) {
        let worst = found.iter().zip(expected).map(|(found, wanted)| found.abs_diff(wanted)).max();
        assert!(worst <= Some(8), "{found:?} is not about {expected:?}");
    }

    #[test]
    fn of_an_animation_the_first_picture_is_taken() {
        for name in ["animated.png", "animated.webp"] {
            let picture = decoded(&seed(name), "16x16").unwrap();
            assert_eq!(picture.rgb, [255, 0, 0].repeat(16 * 16), "{name}");
        }
        let error = PictureFile::new("image", b"GIF89a".to_vec().into()).unwrap_err();
        assert!(error.message.contains("not a PNG, JPEG or WebP"), "{error}");
    }

    /// What Pillow makes of the same file: `Image.open(name).convert("RGB")`.
    #[test]
    fn the_four_inks_of_a_printers_jpeg_become_three_lights() {
        assert_about(&decoded(&seed("cmyk.jpg"), "16x16").unwrap().rgb[..3], [27, 112, 97]);
    }

    /// Red beside blue, as the sensor lies.
    #[test]
    fn a_picture_that_a_camera_says_to_turn_is_turned() {
        let lying = RgbImage::from_fn(32, 16, |x, _| Rgb(if x < 16 { [255, 0, 0] } else { [0, 0, 255] }));
        let plain = written(&DynamicImage::ImageRgb8(lying), ImageFormat::Jpeg).bytes;
        // APP1 with one entry of big-endian TIFF: orientation (0x0112), a SHORT, 6: a quarter to the right.
        let tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let length = (2 + 6 + tiff.len() as u16).to_be_bytes();
        let exif = [&[0xff, 0xe1], &length[..], b"Exif\0\0", tiff].concat();
        let turned = [&plain[..2], &exif, &plain[2..]].concat();
        let picture = decoded(&PictureFile::new("image", turned.into()).unwrap(), "16x32").unwrap();
        assert_about(&picture.rgb[..3], [255, 0, 0]);
        assert_about(&picture.rgb[16 * 31 * 3..][..3], [0, 0, 255]);
    }

    /// 64 MiB in 64 KiB, where the header promises 8 x 8 pixels.
    #[test]
    fn pixels_beyond_those_that_the_header_promises_are_not_unpacked() {
        let picture = decoded(&seed("bomb.png"), "16x16").unwrap();
        assert_eq!(picture.rgb, [0; 16 * 16 * 3]);
    }

    /// A PNG of 40,000 x 40,000 pixels in fewer than 100 bytes.
    #[test]
    fn a_small_file_of_a_huge_picture_is_refused_by_its_header() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 40_000, 40_000);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, b"").unwrap();
        drop(writer);
        assert!(bytes.len() < 100);
        let error = decoded(&PictureFile::new("image", bytes.into()).unwrap(), "32x16").unwrap_err();
        assert!(error.message.contains("40000x40000"), "{error}");
    }
}
