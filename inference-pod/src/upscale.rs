//! Finished pictures, four times as wide and high: who does it. Knows pixels; does not know the network behind the trait.

use easel_api::ImageSize;
use easel_api::images::UPSCALE_FACTOR;

use crate::pipeline::{Picture, PipelineError};

/// Called by any thread, after the picture is drawn.
pub trait Upscale: std::fmt::Debug + Send + Sync + 'static {
    /// [`UPSCALE_FACTOR`] times as wide and high.
    fn upscale(&self, picture: &Picture) -> Result<Picture, PipelineError>;
}

/// The size of a picture of this size that is upscaled.
pub fn larger(size: ImageSize) -> Result<ImageSize, PipelineError> {
    size.times(UPSCALE_FACTOR).map_err(|error| PipelineError::Unsupported(format!("four times {size}: {error}")))
}

/// Repeats pixels: for tests and simulations, and for previews.
#[derive(Clone, Copy, Debug)]
pub struct Repeat;

impl Upscale for Repeat {
    fn upscale(&self, picture: &Picture) -> Result<Picture, PipelineError> {
        let factor = UPSCALE_FACTOR as usize;
        let size = larger(picture.size)?;
        let wide = |row: &[u8]| -> Vec<u8> { row.chunks_exact(3).flat_map(|pixel| pixel.repeat(factor)).collect() };
        let rows = picture.rgb.chunks_exact(3 * picture.size.width() as usize);
        Ok(Picture { size, rgb: rows.flat_map(|row| wide(row).repeat(factor)).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_becomes_a_square_of_its_colour() {
        let size = "32x16".parse().unwrap();
        let rgb: Vec<u8> = (0..32 * 16 * 3).map(|at| (at % 251) as u8).collect();
        let large = Repeat.upscale(&Picture { size, rgb: rgb.clone() }).unwrap();
        assert_eq!(large.size.to_string(), "128x64");
        for (x, y) in [(0, 0), (127, 63), (50, 13)] {
            let at = |width: usize, x: usize, y: usize| 3 * (y * width + x);
            let (found, drawn) = (at(128, x, y), at(32, x / 4, y / 4));
            assert_eq!(large.rgb[found..found + 3], rgb[drawn..drawn + 3], "{x}, {y}");
        }
    }

    #[test]
    fn what_would_be_too_large_is_an_error() {
        let size = "1024x1024".parse().unwrap();
        let error = Repeat.upscale(&Picture { size, rgb: Vec::new() }).unwrap_err();
        assert!(error.to_string().contains("3840"), "{error}");
    }
}
