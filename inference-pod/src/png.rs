//! Writes a finished picture as PNG, with how it was drawn in its text chunks.
//! Knows the file format and the words that image tools read; does not know how the picture came to be.

use std::borrow::Cow;

use easel_api::images::{ControlFields, ControlOptions, SamplerKind, Strength};
use serde::Serialize;

use crate::cut_out::Mask;
use crate::picture_file::xmp_packet;
use crate::pipeline::{Picture, PictureRequest, Way, WornAdapter};

/// What `parameters` and `easel` say beside the request.
#[derive(Clone, Debug)]
pub struct Provenance<'a> {
    pub model: &'a str,
    /// Of the checkpoint, `sha256:…`.
    pub digest: &'a str,
}

/// The chunk `easel`, as JSON.
#[derive(Serialize)]
struct EaselChunk<'a> {
    model: &'a str,
    digest: &'a str,
    prompt: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    negative_prompt: &'a str,
    seed: u64,
    steps: u32,
    guidance_scale: f32,
    /// Only of a picture that was edited by an instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_guidance_scale: Option<f32>,
    /// Only of a picture that another one was drawn on to.
    #[serde(skip_serializing_if = "Option::is_none")]
    strength: Option<Strength>,
    /// Only of a picture that another one steered.
    #[serde(flatten)]
    control: ControlFields,
    sampler: SamplerKind,
    size: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adapters: Vec<EaselAdapter<'a>>,
}

#[derive(Serialize)]
struct EaselAdapter<'a> {
    name: &'a str,
    digest: &'a str,
    weight: f32,
}

impl<'a> From<&'a WornAdapter> for EaselAdapter<'a> {
    fn from(WornAdapter { name, digest, weight }: &'a WornAdapter) -> Self {
        Self { name, digest, weight: *weight }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("failed to write the picture as PNG")]
pub struct PngError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The bytes of a PNG file, 8 bits a channel: RGB, or RGBA with a mask.
pub fn encode(
    picture: &Picture,
    mask: Option<&Mask>,
    request: &PictureRequest,
    provenance: &Provenance<'_>,
) -> Result<Vec<u8>, PngError> {
    let rgba = mask.map(|mask| mask.rgba(picture));
    let mut bytes = Vec::with_capacity(picture.rgb.len() / 2);
    let mut encoder = png::Encoder::new(&mut bytes, picture.size.width(), picture.size.height());
    encoder.set_color(if rgba.is_some() { png::ColorType::Rgba } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let wrap = |error: png::EncodingError| PngError(error.into());
    // iTXt, because prompts are not Latin-1.
    let parameters = parameters(request, provenance);
    let packet = xmp_packet(&parameters, usize::MAX);
    encoder.add_itxt_chunk("parameters".into(), parameters).map_err(wrap)?;
    encoder.add_itxt_chunk("easel".into(), easel(request, provenance)?).map_err(wrap)?;
    encoder.add_itxt_chunk("XML:com.adobe.xmp".into(), packet).map_err(wrap)?;
    let mut writer = encoder.write_header().map_err(wrap)?;
    writer.write_image_data(rgba.as_ref().unwrap_or(&picture.rgb)).map_err(wrap)?;
    writer.finish().map_err(wrap)?;
    Ok(bytes)
}

/// The form that AUTOMATIC1111's web UI writes and galleries read.
pub(crate) fn parameters(request: &PictureRequest, provenance: &Provenance<'_>) -> String {
    let PictureRequest { prompt, negative_prompt, seed, steps, guidance_scale, size, sampler, edit, adapters } =
        request;
    let worn = |adapter: &WornAdapter| format!(" <lora:{}:{}>", adapter.name, adapter.weight);
    let prompt = format!("{}{}", one_line(prompt), adapters.iter().map(worn).collect::<String>());
    let negative = match negative_prompt.as_str() {
        "" => String::new(),
        text => format!("\nNegative prompt: {}", one_line(text)),
    };
    let sampler = sampler_name(*sampler);
    let way = match edit.as_ref().map(|edit| &edit.way) {
        None => String::new(),
        Some(Way::Control(ControlOptions { scale, start, end })) => {
            format!("ControlNet 0: \"Weight: {scale}, Guidance Start: {start}, Guidance End: {end}\", ")
        }
        Some(Way::Instruct { image_guidance_scale }) => format!("Image CFG scale: {image_guidance_scale}, "),
        Some(Way::ImageToImage { strength } | Way::Inpaint { mask: _, strength }) => {
            format!("Denoising strength: {strength}, ")
        }
    };
    let hash = short(provenance.digest);
    let hashes: Vec<_> =
        adapters.iter().map(|adapter| format!("{}: {}", adapter.name, short(&adapter.digest))).collect();
    let hashes = if hashes.is_empty() { String::new() } else { format!(", Lora hashes: \"{}\"", hashes.join(", ")) };
    format!(
        "{prompt}{negative}\nSteps: {steps}, Sampler: {sampler}, CFG scale: {guidance_scale}, {way}Seed: {seed}, \
         Size: {size}, Model hash: {hash}, Model: {}{hashes}",
        provenance.model
    )
}

/// As long as theirs.
fn short(digest: &str) -> &str {
    let hash = digest.trim_start_matches("sha256:");
    hash.get(..10).unwrap_or(hash)
}

/// As galleries know them.
fn sampler_name(sampler: SamplerKind) -> &'static str {
    match sampler {
        SamplerKind::Ddim => "DDIM",
        SamplerKind::Ddpm => "DDPM",
        SamplerKind::Euler => "Euler",
        SamplerKind::EulerAncestral => "Euler a",
        SamplerKind::Heun => "Heun",
        SamplerKind::Dpmpp2m => "DPM++ 2M",
        SamplerKind::Dpmpp2mKarras => "DPM++ 2M Karras",
        SamplerKind::Dpmpp2mSde => "DPM++ 2M SDE",
        SamplerKind::UniPc => "UniPC",
        SamplerKind::Lcm => "LCM",
        SamplerKind::FlowMatchEuler => "FlowMatch Euler",
    }
}

/// Lines are that form's syntax: a prompt with line breaks could say that it was another one. NUL ends a chunk's text.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(|c: char| c.is_control()) {
        return text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().into();
    }
    text.into()
}

fn easel(request: &PictureRequest, provenance: &Provenance<'_>) -> Result<String, PngError> {
    let PictureRequest { prompt, negative_prompt, seed, steps, guidance_scale, size, sampler, edit, adapters } =
        request;
    let way = edit.as_ref().map(|edit| &edit.way);
    let chunk = EaselChunk {
        model: provenance.model,
        digest: provenance.digest,
        prompt,
        negative_prompt,
        seed: *seed,
        steps: *steps,
        guidance_scale: *guidance_scale,
        image_guidance_scale: match way {
            Some(Way::Instruct { image_guidance_scale }) => Some(*image_guidance_scale),
            None | Some(Way::ImageToImage { .. } | Way::Inpaint { .. } | Way::Control(_)) => None,
        },
        strength: request.strength(),
        control: match way {
            Some(Way::Control(options)) => ControlFields::from(*options),
            None | Some(Way::Instruct { .. } | Way::ImageToImage { .. } | Way::Inpaint { .. }) => {
                ControlFields::default()
            }
        },
        sampler: *sampler,
        size: size.to_string(),
        adapters: adapters.iter().map(EaselAdapter::from).collect(),
    };
    serde_json::to_string(&chunk).map_err(|error| PngError(error.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pipeline::Edit;

    fn request(prompt: &str) -> PictureRequest {
        PictureRequest {
            prompt: prompt.into(),
            negative_prompt: "blur".into(),
            seed: u64::MAX,
            steps: 7,
            guidance_scale: 7.5,
            size: "16x32".parse().unwrap(),
            sampler: SamplerKind::Euler,
            edit: None,
            adapters: Vec::new(),
        }
    }

    fn written(prompt: &str) -> (Picture, Vec<u8>, Vec<(String, String)>) {
        let request = request(prompt);
        let picture = Picture { size: request.size, rgb: (0..16 * 32 * 3).map(|i| (i % 251) as u8).collect() };
        let provenance = Provenance { model: "art/sdxl", digest: "sha256:0123456789abcdef" };
        let bytes = encode(&picture, None, &request, &provenance).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let texts = &reader.info().utf8_text;
        let texts = texts.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap())).collect();
        (picture, pixels, texts)
    }

    #[test]
    fn a_picture_reads_back_with_its_pixels_and_how_it_was_drawn() {
        let (picture, pixels, texts) = written("a cät, 猫");
        assert_eq!(pixels, picture.rgb);
        let expected = "a cät, 猫\nNegative prompt: blur\nSteps: 7, Sampler: Euler, CFG scale: 7.5, \
                        Seed: 18446744073709551615, Size: 16x32, Model hash: 0123456789, Model: art/sdxl";
        assert_eq!(texts[0], ("parameters".to_owned(), expected.to_owned()));
        let easel: serde_json::Value = serde_json::from_str(&texts[1].1).unwrap();
        assert_eq!(
            (&texts[1].0[..], &easel["seed"], &easel["digest"]),
            ("easel", &u64::MAX.into(), &"sha256:0123456789abcdef".into())
        );
        assert_eq!(
            (&easel["sampler"], &easel["steps"], &easel["guidance_scale"]),
            (&"euler".into(), &7.into(), &7.5.into())
        );
    }

    #[test]
    fn a_picture_that_another_one_steered_says_how_much() {
        let size = "16x32".parse().unwrap();
        let steering = Arc::new(Picture { size, rgb: Vec::new() });
        let way = Way::Control(ControlOptions { scale: 0.5, start: 0.0, end: 0.75 });
        let request = PictureRequest { edit: Some(Edit { picture: steering, way }), ..request("a cat") };
        let provenance = Provenance { model: "art/sd", digest: "sha256:0123456789abcdef" };
        let parameters = parameters(&request, &provenance);
        let expected = "CFG scale: 7.5, ControlNet 0: \"Weight: 0.5, Guidance Start: 0, Guidance End: 0.75\", Seed: ";
        assert!(parameters.contains(expected), "{parameters}");
        let easel: serde_json::Value = serde_json::from_str(&easel(&request, &provenance).unwrap()).unwrap();
        assert_eq!(
            (&easel["control_scale"], &easel["control_start"], &easel["control_end"]),
            (&0.5.into(), &0.0.into(), &0.75.into())
        );
        assert!(easel.get("image_guidance_scale").is_none() && easel.get("strength").is_none());
    }

    #[test]
    fn a_prompt_with_lines_can_not_forge_the_parameters() {
        let (_, _, texts) = written("a cat\nSteps: 1, Seed: 1\0");
        assert!(texts[0].1.starts_with("a cat Steps: 1, Seed: 1 \nNegative prompt: blur\nSteps: 7"), "{}", texts[0].1);
    }
}
