//! Pictures without their background: who says what of a picture is its object, and the picture with the rest
//! transparent. Knows pixels; knows neither the network behind the trait nor picture files.

use crate::pipeline::{Picture, PipelineError};

/// Says what of a picture is its object. Called by any thread, after the picture is drawn.
pub trait CutOut: std::fmt::Debug + Send + Sync + 'static {
    fn mask(&self, picture: &Picture) -> Result<Mask, PipelineError>;
}

/// How much of each pixel belongs to the object, 0 to 255, `[height][width]` of its picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub alpha: Vec<u8>,
}

impl Mask {
    /// `[height][width][rgba]`. Colours stay as they were drawn, also where nothing is left of them: whoever lays the
    /// picture on another background multiplies by alpha.
    pub fn rgba(&self, picture: &Picture) -> Vec<u8> {
        let pixels = picture.rgb.chunks_exact(3).zip(&self.alpha);
        pixels.flat_map(|(rgb, alpha)| [rgb[0], rgb[1], rgb[2], *alpha]).collect()
    }
}

/// A cut-out without a network, for tests and simulations: the ellipse that touches all four sides.
#[derive(Clone, Copy, Debug)]
pub struct FakeCutOut;

impl CutOut for FakeCutOut {
    fn mask(&self, picture: &Picture) -> Result<Mask, PipelineError> {
        let (width, height) = (picture.size.width(), picture.size.height());
        let from_middle = |at: u32, side: u32| (2 * at + 1) as f32 / side as f32 - 1.0;
        let inside = |x, y| from_middle(x, width).hypot(from_middle(y, height)) <= 1.0;
        let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Ok(Mask { alpha: rows.map(|(x, y)| if inside(x, y) { 255 } else { 0 }).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_and_the_mask_becomes_alpha() {
        let picture = Picture { size: "16x16".parse().unwrap(), rgb: (0..=255).cycle().take(16 * 16 * 3).collect() };
        let mask = Mask { alpha: (0..=255).collect() };
        let rgba = mask.rgba(&picture);
        assert_eq!((rgba.len(), &rgba[..8]), (16 * 16 * 4, &[0, 1, 2, 0, 3, 4, 5, 1][..]));
    }

    #[test]
    fn the_fake_keeps_the_middle_and_drops_the_corners() {
        let size = "32x16".parse().unwrap();
        let Mask { alpha } = FakeCutOut.mask(&Picture { size, rgb: vec![7; 32 * 16 * 3] }).unwrap();
        assert_eq!((alpha.len(), alpha[0], alpha[8 * 32 + 16], alpha[32 * 16 - 1]), (32 * 16, 0, 255, 0));
    }
}
