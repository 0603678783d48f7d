//! What file a picture shall become: format, compression, background.
//! Knows which of them go together; writes no file.

use serde::{Deserialize, Serialize};

use super::{in_range, invalid_value};
use crate::error::ApiError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Background {
    Auto,
    Opaque,
    Transparent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    Png,
    Jpeg,
    Webp,
}

/// A combination that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub encoding: Encoding,
    /// Never [`Background::Auto`].
    pub background: Background,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Png,
    /// 0 to 100.
    Jpeg {
        quality: u8,
    },
    /// 0 to 99; 100 is [`Encoding::LosslessWebp`].
    Webp {
        quality: u8,
    },
    LosslessWebp,
}

impl Output {
    /// `compression` is OpenAI's word for quality: 100, where nothing else is said, loses the least.
    pub(super) fn new(
        format: Option<OutputFormat>,
        compression: Option<i64>,
        background: Option<Background>,
    ) -> Result<Self, ApiError> {
        in_range("output_compression", compression, 0, 100)?;
        let quality = compression.and_then(|level| u8::try_from(level).ok()).unwrap_or(100);
        let encoding = match (format.unwrap_or(OutputFormat::Png), quality) {
            (OutputFormat::Png, 100) => Encoding::Png,
            (OutputFormat::Png, _) => {
                let message = "png is lossless: leave output_compression out, or ask for jpeg or webp";
                return Err(invalid_value("output_compression", message));
            }
            (OutputFormat::Jpeg, quality) => Encoding::Jpeg { quality },
            (OutputFormat::Webp, 100) => Encoding::LosslessWebp,
            (OutputFormat::Webp, quality) => Encoding::Webp { quality },
        };
        let background = match background {
            None | Some(Background::Auto | Background::Opaque) => Background::Opaque,
            Some(Background::Transparent) => Background::Transparent,
        };
        let output = Self { encoding, background };
        if background == Background::Transparent && output.format() == OutputFormat::Jpeg {
            let message = "jpeg has no transparency: ask for png or webp, or leave background out";
            return Err(invalid_value("background", message));
        }
        Ok(output)
    }

    pub fn format(self) -> OutputFormat {
        match self.encoding {
            Encoding::Png => OutputFormat::Png,
            Encoding::Jpeg { .. } => OutputFormat::Jpeg,
            Encoding::Webp { .. } | Encoding::LosslessWebp => OutputFormat::Webp,
        }
    }

    pub fn is_transparent(self) -> bool {
        self.background == Background::Transparent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputFormat::{Jpeg, Png, Webp};

    fn encoding(format: Option<OutputFormat>, compression: Option<i64>) -> Result<Encoding, ApiError> {
        Output::new(format, compression, None).map(|output| output.encoding)
    }

    #[test]
    fn nothing_said_is_a_png_and_every_format_loses_as_little_as_it_can() {
        let output = Output::new(None, None, Some(Background::Auto)).unwrap();
        assert_eq!(output, Output { encoding: Encoding::Png, background: Background::Opaque });
        assert_eq!(encoding(Some(Png), Some(100)), Ok(Encoding::Png));
        assert_eq!(encoding(Some(Jpeg), None), Ok(Encoding::Jpeg { quality: 100 }));
        assert_eq!(encoding(Some(Webp), None), Ok(Encoding::LosslessWebp));
        assert_eq!(encoding(Some(Webp), Some(100)), Ok(Encoding::LosslessWebp));
    }

    #[test]
    fn compression_is_the_quality_of_jpeg_and_webp() {
        assert_eq!(encoding(Some(Jpeg), Some(0)), Ok(Encoding::Jpeg { quality: 0 }));
        assert_eq!(encoding(Some(Webp), Some(80)), Ok(Encoding::Webp { quality: 80 }));
    }

    #[test]
    fn what_does_not_go_together_is_a_400_that_names_the_field() {
        for (format, compression, background, param) in [
            (None, Some(50), None, "output_compression"),
            (Some(Jpeg), Some(101), None, "output_compression"),
            (Some(Webp), Some(-1), None, "output_compression"),
            (Some(Jpeg), None, Some(Background::Transparent), "background"),
        ] {
            let error = Output::new(format, compression, background).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error:?}");
        }
    }

    #[test]
    fn png_and_webp_may_be_transparent() {
        for format in [Png, Webp] {
            let output = Output::new(Some(format), None, Some(Background::Transparent)).unwrap();
            assert!(output.is_transparent() && output.format() == format);
        }
    }
}
