//! The size of a picture in pixels: how it is written, and the shapes that OpenAI's document allows.
//! Does not know which sizes a model can draw; that is a limit of the model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Width × height in pixels. Both are multiples of 16, as in OpenAI's document, and so of every VAE's factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageSize {
    width: u32,
    height: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("'{0}' is not a size; write WIDTHxHEIGHT in pixels, such as 512x512")]
    Malformed(String),
    #[error("{0} must be a multiple of 16 pixels wide and high")]
    NotMultiple(String),
    #[error("{0} is outside of the aspect ratios 1:3 to 3:1")]
    Aspect(String),
    #[error("{0} is larger than 3840 pixels on a side")]
    TooLarge(String),
}

impl ImageSize {
    pub const MULTIPLE: u32 = 16;
    pub const MAX_SIDE: u32 = 3840;

    pub fn new(width: u32, height: u32) -> Result<Self, SizeError> {
        let text = format!("{width}x{height}");
        if width == 0 || height == 0 {
            return Err(SizeError::Malformed(text));
        }
        if width > Self::MAX_SIDE || height > Self::MAX_SIDE {
            return Err(SizeError::TooLarge(text));
        }
        if !width.is_multiple_of(Self::MULTIPLE) || !height.is_multiple_of(Self::MULTIPLE) {
            return Err(SizeError::NotMultiple(text));
        }
        if width > 3 * height || height > 3 * width {
            return Err(SizeError::Aspect(text));
        }
        Ok(Self { width, height })
    }

    /// So many times as wide and high.
    pub fn times(self, factor: u32) -> Result<Self, SizeError> {
        Self::new(self.width.saturating_mul(factor), self.height.saturating_mul(factor))
    }

    pub fn width(self) -> u32 {
        self.width
    }

    pub fn height(self) -> u32 {
        self.height
    }

    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for ImageSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        // Digits only: `parse` alone would let "+64" through.
        let side = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten();
        let parsed = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        let (width, height) = parsed.ok_or_else(|| SizeError::Malformed(text.chars().take(32).collect()))?;
        Self::new(width, height)
    }
}

impl TryFrom<String> for ImageSize {
    type Error = SizeError;

    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}

impl From<ImageSize> for String {
    fn from(size: ImageSize) -> String {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_outside_of_the_document_are_refused_with_the_rule_that_they_break() {
        for (text, rule) in [
            ("63x64", "multiple of 16"),
            ("0x64", "not a size"),
            ("64", "not a size"),
            ("+64x64", "not a size"),
            ("64x64x64", "not a size"),
            ("16x64", "aspect"),
            ("3856x3840", "3840"),
        ] {
            let error = text.parse::<ImageSize>().unwrap_err().to_string();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_allowed_size_reads_back_as_itself(w in 1u32..=240, h in 1u32..=240) {
            if let Ok(size) = ImageSize::new(w * 16, h * 16) {
                prop_assert_eq!(size.to_string().parse::<ImageSize>(), Ok(size));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<ImageSize>();
        }
    }
}
