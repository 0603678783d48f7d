//! Large pictures in tiles that overlap, so that the memory for one is bounded by a tile and not by the picture.
//! Transcribed from diffusers 0.42.1, `models/autoencoders/autoencoder_kl.py`, `tiled_decode` and `_tiled_encode`.

use tch::{Kind, Tensor};

use crate::torch::resnet::height_width;

/// Up to here a picture is taken as a whole, which is better: no tile knows what another's norms and attention see. All
/// sizes that OpenAI names and that models are trained on are smaller. An f32 VAE of Stable Diffusion's widths takes
/// 4.2 KiB a pixel (measured), so 6.3 GiB here, and half of it in 16 bits.
pub(super) const WHOLE_PIXELS: i64 = 1536 * 1024;
/// Of a tile's side at most: 4.2 GiB of the same VAE.
const TILE_PIXELS: i64 = 1024;
/// Sides are multiples of it, so that a quarter of one, by which tiles overlap, is whole.
const QUARTERS: i64 = 4;

/// What a tile's side becomes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// So many times as long: latents to pixels.
    Up(i64),
    /// So many times as short: pixels to latents.
    Down(i64),
}

/// Height and width of the tiles, in latents, of a picture of `height` by `width` latents; none where it stays whole.
pub(super) fn sides(height: i64, width: i64, factor: i64) -> Option<[i64; 2]> {
    (height * width * factor * factor > WHOLE_PIXELS)
        .then(|| [height, width].map(|length| side(length, TILE_PIXELS / factor)))
}

/// Up to `longest`, but shorter where the last tile would be a strip, which sees too little to be drawn well.
fn side(length: i64, longest: i64) -> i64 {
    let last = |side: i64| (length - 1) % stride(side) + 1;
    let mut candidates = (longest / 2..=longest).rev().filter(|side| side % QUARTERS == 0);
    candidates.find(|&side| last(side) >= side / 2).unwrap_or(longest)
}

/// From one tile's begin to the next one's.
fn stride(side: i64) -> i64 {
    side - side / QUARTERS
}

/// `compute` of each tile of `x`, `[batch, _, height, width]`, put together as f32. `sides` are in latents, whole quarters.
pub(super) fn in_tiles(x: &Tensor, sides: [i64; 2], scale: Scale, compute: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let (unit, scaled) = match scale {
        Scale::Up(factor) => (1, factor),
        Scale::Down(factor) => (factor, 1),
    };
    let (height, width) = height_width(x);
    let begins = |length: i64, side: i64| (0..length).step_by((stride(side) * unit) as usize);
    let cut =
        |x: &Tensor, dim, begin, side: i64| x.narrow(dim, begin, (side * unit).min(x.size()[dim as usize] - begin));
    let (mut rows, mut above) = (Vec::new(), Vec::<Tensor>::new());
    for top in begins(height, sides[0]) {
        let mut row: Vec<Tensor> = Vec::new();
        for (column, left) in begins(width, sides[1]).enumerate() {
            let mut tile = compute(&cut(&cut(x, 2, top, sides[0]), 3, left, sides[1])).to_kind(Kind::Float);
            if let Some(above) = above.get(column) {
                tile = blended(above, &tile, 2, sides[0] / QUARTERS * scaled);
            }
            if let Some(before) = row.last() {
                tile = blended(before, &tile, 3, sides[1] / QUARTERS * scaled);
            }
            row.push(tile);
        }
        let kept =
            |tile: &Tensor, dim, side| tile.narrow(dim, 0, (stride(side) * scaled).min(tile.size()[dim as usize]));
        let parts: Vec<Tensor> = row.iter().map(|tile| kept(&kept(tile, 2, sides[0]), 3, sides[1])).collect();
        rows.push(Tensor::cat(&parts, 3));
        above = row;
    }
    Tensor::cat(&rows, 2)
}

/// `tile`, whose begin fades in over the end of the one before along `dim`: `blend_v` and `blend_h`.
fn blended(before: &Tensor, tile: &Tensor, dim: i64, extent: i64) -> Tensor {
    let length = |x: &Tensor| x.size()[dim as usize];
    let extent = extent.min(length(before)).min(length(tile));
    let mut shape = [1; 4];
    shape[dim as usize] = extent;
    let weight = (Tensor::arange(extent, (Kind::Float, tile.device())) / extent as f64).view(shape);
    let end = before.narrow(dim, length(before) - extent, extent) * (1.0 - &weight);
    let faded = end + tile.narrow(dim, 0, extent) * weight;
    Tensor::cat(&[faded, tile.narrow(dim, extent, length(tile) - extent)], dim)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn pictures_of_usual_sizes_stay_whole_and_larger_ones_do_not() {
        let pixels = |width: i64, height: i64| sides(height / 8, width / 8, 8);
        for (width, height) in [(1024, 1024), (1536, 1024), (1024, 1536), (1536, 640), (512, 3072)] {
            assert_eq!(pixels(width, height), None, "{width}x{height}");
        }
        assert_eq!(pixels(3840, 2160), Some([128, 128]));
        assert_eq!(pixels(1552, 1024), Some([100, 96]));
    }

    #[test]
    fn no_tile_is_larger_than_the_bound_and_none_is_a_strip() {
        for length in 129..=480 {
            let side = side(length, 128);
            let last = (length - 1) % stride(side) + 1;
            assert!(side <= 128 && side % 4 == 0 && last >= side / 2, "{length}: {side}, {last}");
        }
    }

    #[test]
    fn tiles_of_what_does_not_change_are_put_together_as_it_was() {
        let x = Tensor::randn([1, 2, 21, 30], (Kind::Float, Device::Cpu));
        let same = in_tiles(&x, [8, 12], Scale::Up(1), Tensor::shallow_clone);
        assert!((same - &x).abs().max().double_value(&[]) <= 1e-6);
    }
}
