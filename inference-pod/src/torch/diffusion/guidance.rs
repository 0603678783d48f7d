//! Classifier-free guidance: which rows of the model's batch one job takes, and what its predictions become.
//! Transcribed from diffusers 0.42.1, `pipeline_stable_diffusion.py` and `.._instruct_pix2pix.py`.

use tch::Tensor;

use crate::pipeline::{PictureRequest, Way};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Guidance {
    None,
    /// Rows: negative prompt, prompt.
    Text(f32),
    /// Rows: prompt and picture; negative prompt and picture; negative prompt alone.
    TextAndPicture {
        text: f32,
        picture: f32,
    },
}

impl Guidance {
    /// Up to 1 guidance by the text would leave the prediction as it is or weaken it; diffusers skips it too, and with
    /// it that by the picture, which it also skips below 1. A picture that steers is seen by every row.
    pub(super) fn of(request: &PictureRequest) -> Self {
        let text = request.guidance_scale;
        match request.edit.as_ref().map(|edit| &edit.way) {
            Some(Way::Instruct { image_guidance_scale: picture }) if text > 1.0 && *picture >= 1.0 => {
                Self::TextAndPicture { text, picture: *picture }
            }
            None | Some(Way::ImageToImage { .. } | Way::Inpaint { .. } | Way::Control(_)) if text > 1.0 => {
                Self::Text(text)
            }
            None | Some(_) => Self::None,
        }
    }

    pub(super) fn rows(self) -> i64 {
        match self {
            Self::None => 1,
            Self::Text(_) => 2,
            Self::TextAndPicture { .. } => 3,
        }
    }

    /// Which text a row reads: 0 is the negative prompt where there is one, 1 the prompt.
    pub(super) fn text_of(self, row: i64) -> i64 {
        match self {
            Self::None | Self::Text(_) => row,
            Self::TextAndPicture { .. } => i64::from(row == 0),
        }
    }

    /// Whether a row sees the picture.
    pub(super) fn sees_picture(self, row: i64) -> bool {
        match self {
            Self::None | Self::Text(_) => true,
            Self::TextAndPicture { .. } => row < 2,
        }
    }

    /// One prediction of those of the rows.
    pub(super) fn combine(self, row: impl Fn(usize) -> Tensor) -> Tensor {
        match self {
            Self::None => row(0),
            Self::Text(scale) => row(0) + (row(1) - row(0)) * f64::from(scale),
            Self::TextAndPicture { text, picture } => {
                let (with_text, with_picture, without) = (row(0), row(1), row(2));
                let by_text = (with_text - &with_picture) * f64::from(text);
                let by_picture = (with_picture - &without) * f64::from(picture);
                without + by_text + by_picture
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pipeline::{Edit, Picture};
    use easel_api::images::{ControlOptions, SamplerKind, Strength};

    fn guidance(text: f32, way: Option<Way>) -> Guidance {
        let size = "16x16".parse().unwrap();
        let edit = |way| Edit { picture: Arc::new(Picture { size, rgb: Vec::new() }), way };
        Guidance::of(&PictureRequest {
            prompt: String::new(),
            negative_prompt: String::new(),
            seed: 0,
            steps: 1,
            guidance_scale: text,
            size,
            sampler: SamplerKind::Ddim,
            edit: way.map(edit),
            adapters: Vec::new(),
        })
    }

    fn instructed(image_guidance_scale: f32) -> Way {
        Way::Instruct { image_guidance_scale }
    }

    #[test]
    fn guidance_is_on_when_diffusers_has_it_on() {
        assert_eq!(guidance(1.0, None), Guidance::None);
        assert_eq!(guidance(1.1, None), Guidance::Text(1.1));
        assert_eq!(guidance(2.0, Some(instructed(1.0))), Guidance::TextAndPicture { text: 2.0, picture: 1.0 });
        assert_eq!(guidance(2.0, Some(instructed(0.9))), Guidance::None);
        assert_eq!(guidance(1.0, Some(instructed(1.5))), Guidance::None);
        for way in [Way::ImageToImage { strength: Strength::WHOLE }, Way::Control(ControlOptions::default())] {
            assert_eq!(guidance(2.0, Some(way.clone())), Guidance::Text(2.0));
            assert_eq!(guidance(1.0, Some(way)), Guidance::None);
        }
    }

    #[test]
    fn three_rows_become_one_as_in_the_paper() {
        let row = |row: usize| Tensor::from([7.0_f32, 3.0, 1.0][row]);
        let combined = guidance(2.0, Some(instructed(1.5))).combine(row);
        assert!((combined.double_value(&[]) - (1.0 + 2.0 * 4.0 + 1.5 * 2.0)).abs() < 1e-6);
    }
}
