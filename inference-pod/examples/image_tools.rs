//! Draws the sheets of `models/cards/tools` with the code that pods run: pictures upscaled beside what resizing makes of
//! them, and cut out, on a chequered ground.
//! `cargo run --release --features torch --example image_tools -- DRAWN OUT`, from this crate's folder:
//! `-- models/cards/tools/drawn models/cards/tools`

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use easel_inference::cut_out::CutOut;
use easel_inference::pipeline::Picture;
use easel_inference::torch::u2net::U2NetP;
use easel_inference::torch::upscale::Upscaler;
use easel_inference::torch::{self, DeviceChoice, Dtype, Placement};
use easel_inference::upscale::Upscale;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

const UPSCALED: [&str; 4] = ["pizza", "car", "cat-face", "strawberry"];
/// The last two are wrong.
const CUT_OUT: [&str; 6] = ["pizza", "rose", "car", "rocket", "fox", "ghost"];
const GAP: u32 = 8;
/// Of a cut-out on its sheet, in pixels.
const CELL: u32 = 128;
const SQUARE: u32 = 8;

fn main() -> anyhow::Result<()> {
    torch::init();
    let mut arguments = std::env::args().skip(1);
    let (drawn, out) = arguments.next().zip(arguments.next()).context("say where pictures are and where to write")?;
    let placement = Placement::choose(DeviceChoice::Auto, Dtype::F32)?;
    torch::set_threads(std::thread::available_parallelism().map_or(1, |cores| cores.get() as u16));
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let upscaler = Upscaler::load(&models.join("upscale"), placement)?;
    let cut_out = U2NetP::load(&models.join("cut-out"), placement)?;
    let read = |name: &&str| read(&Path::new(&drawn).join(format!("{name}.png")));

    let rows: Vec<_> = UPSCALED.iter().map(|name| upscaled(&upscaler, &read(name)?)).collect::<anyhow::Result<_>>()?;
    sheet(&rows).save(Path::new(&out).join("upscaled.png"))?;
    let columns: Vec<_> = CUT_OUT.iter().map(|name| without(&cut_out, &read(name)?)).collect::<anyhow::Result<_>>()?;
    sheet(&columns).save(Path::new(&out).join("cut-out.png"))?;
    easel_inference::backend::exit(0) // libtorch's destructors are nobody's time
}

fn read(path: &Path) -> anyhow::Result<Picture> {
    let image = image::open(path).with_context(|| format!("failed to read {}", path.display()))?.into_rgb8();
    let size = easel_api::ImageSize::new(image.width(), image.height())?;
    Ok(Picture { size, rgb: image.into_raw() })
}

fn image(picture: &Picture) -> anyhow::Result<RgbImage> {
    let (width, height) = (picture.size.width(), picture.size.height());
    RgbImage::from_raw(width, height, picture.rgb.clone()).context("a picture has another size than it says")
}

/// Repeated pixels, bicubic, the network.
fn upscaled(model: &Upscaler, picture: &Picture) -> anyhow::Result<Vec<RgbImage>> {
    let started = Instant::now();
    let large = image(&model.upscale(picture)?)?;
    println!("upscaled {} to {}x{} in {:.0?}", picture.size, large.width(), large.height(), started.elapsed());
    let small = image(picture)?;
    let resized = |filter| imageops::resize(&small, large.width(), large.height(), filter);
    Ok(vec![resized(FilterType::Nearest), resized(FilterType::CatmullRom), large])
}

/// The picture, its mask, and what is left.
fn without(model: &U2NetP, picture: &Picture) -> anyhow::Result<Vec<RgbImage>> {
    let started = Instant::now();
    let mask = model.mask(picture)?;
    println!("cut out {} in {:.0?}", picture.size, started.elapsed());
    let picture = image(picture)?;
    let (width, height) = picture.dimensions();
    let grey = RgbImage::from_fn(width, height, |x, y| Rgb([mask.alpha[(y * width + x) as usize]; 3]));
    let [picture, grey] = [picture, grey].map(|image| imageops::resize(&image, CELL, CELL, FilterType::CatmullRom));
    let left = RgbImage::from_fn(CELL, CELL, |x, y| {
        let (colour, alpha) = (picture.get_pixel(x, y).0, u32::from(grey.get_pixel(x, y).0[0]));
        let ground = if (x / SQUARE + y / SQUARE).is_multiple_of(2) { 200 } else { 150 };
        Rgb(colour.map(|value| ((u32::from(value) * alpha + ground * (255 - alpha)) / 255) as u8))
    });
    Ok(vec![picture, grey, left])
}

/// One row for each list.
fn sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
    let (cell, columns) = (rows[0][0].width() + GAP, rows.iter().map(Vec::len).max().unwrap_or_default());
    let (width, height) = (cell * columns as u32 - GAP, cell * rows.len() as u32 - GAP);
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    for (row, y) in rows.iter().zip((0..).step_by(cell as usize)) {
        for (image, x) in row.iter().zip((0..).step_by(cell as usize)) {
            imageops::replace(&mut sheet, image, x, y);
        }
    }
    sheet
}
