//! Makes pixels of a picture that a client sent: decoded within bounds, upright, on white, of the size that is asked.
//! Knows picture files; does not know what becomes of them.

use std::io::Cursor;

use easel_api::ImageSize;
use easel_api::error::ApiError;
use easel_api::images::{MAX_PICTURE_PIXELS, PictureFile, PictureFormat};
use image::imageops::{FilterType, resize};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits, Rgb, RgbImage};
use tokio::sync::Semaphore;

use crate::pipeline::Picture;

/// Each holds the decoded picture and a copy or two of it.
static DECODING: Semaphore = Semaphore::const_new(2);
/// Of one decoder: 16 bits of four channels for the largest picture, and as much beside.
const MAX_MEMORY: u64 = 16 * MAX_PICTURE_PIXELS;
/// What diffusers resizes with too.
const FILTER: FilterType = FilterType::Lanczos3;

/// Takes as long as a step, so it has a thread of its own.
pub(super) async fn decode(file: PictureFile, size: ImageSize) -> Result<Picture, ApiError> {
    let place = DECODING.acquire().await.map_err(|_| ApiError::internal("failed to decode the picture"))?;
    let decoded = tokio::task::spawn_blocking(move || decode_now(&file, size)).await;
    drop(place);
    decoded.map_err(|_| ApiError::internal("failed to decode the picture"))?
}

fn decode_now(file: &PictureFile, size: ImageSize) -> Result<Picture, ApiError> {
    let format = match file.format {
        PictureFormat::Png => ImageFormat::Png,
        PictureFormat::Jpeg => ImageFormat::Jpeg,
        PictureFormat::Webp => ImageFormat::WebP,
    };
    let invalid = |error| invalid(&format!("the picture can't be decoded: {error}"));
    let decoder = ImageReader::with_format(Cursor::new(&file.bytes[..]), format).into_decoder().map_err(invalid)?;
    // The header says how large it is: a small file of a huge picture costs no memory.
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PICTURE_PIXELS {
        let message = format!("the picture is {width}x{height}; it may have {MAX_PICTURE_PIXELS} pixels");
        return Err(self::invalid(&message));
    }
    let upright = upright(decoder).map_err(invalid)?;
    Ok(Picture { size, rgb: fitted(on_white(upright), size).into_raw() })
}

/// Cameras store pictures as the sensor lies, and say in the file how to turn them.
fn upright(mut decoder: impl ImageDecoder) -> ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_MEMORY);
    decoder.set_limits(limits)?;
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
fn fitted(image: RgbImage, size: ImageSize) -> RgbImage {
    if image.dimensions() == (size.width(), size.height()) {
        return image;
    }
    resize(&image, size.width(), size.height(), FILTER)
}

fn invalid(message: &str) -> ApiError {
    ApiError::invalid("image", "invalid_image", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Rgba};

    fn written(image: &DynamicImage, format: ImageFormat) -> PictureFile {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        PictureFile::new("image", bytes.into_inner().into()).unwrap()
    }

    fn decoded(file: &PictureFile, size: &str) -> Result<Picture, ApiError> {
        decode_now(file, size.parse().unwrap())
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
