//! Where a vector stands: pairs of its numbers are turned by angles that grow with its row and column.
//! Transcribed from diffusers 0.42.1, `models/transformers/transformer_flux.py`, `FluxPosEmbed`, and
//! `models/embeddings.py`, `get_1d_rotary_pos_embed` and `apply_rotary_emb`.

use tch::{Device, Kind, Tensor};

const THETA: f64 = 10_000.0;

/// Of text, which stands at 0, and behind it of pixels row by row: `[length, 1, head_dim / 2]`, each a complex number of
/// f32 that turns a pair.
#[derive(Debug)]
pub(super) struct Rotary {
    turns: Tensor,
}

impl Rotary {
    pub(super) fn new(axes: &[i64; 3], text: i64, (rows, columns): (i64, i64), device: Device) -> Self {
        let ordinal = |count| Tensor::arange(count, (Kind::Double, device));
        let of_text = Tensor::zeros([text], (Kind::Double, device));
        let row = ordinal(rows).unsqueeze(1).expand([rows, columns], false).reshape([-1]);
        let column = ordinal(columns).unsqueeze(0).expand([rows, columns], false).reshape([-1]);
        // The first axis is 0 for pixels too.
        let pixels = [row.zeros_like(), row, column];
        let angles: Vec<Tensor> =
            axes.iter().zip(&pixels).map(|(&dim, pixels)| angles(dim, &Tensor::cat(&[&of_text, pixels], 0))).collect();
        let angles = Tensor::cat(&angles, -1).unsqueeze(1); // [length, 1, head_dim / 2]
        Self { turns: Tensor::complex(&angles.cos().to_kind(Kind::Float), &angles.sin().to_kind(Kind::Float)) }
    }

    /// `[batch, length, heads, head_dim]` → the same shape
    pub(super) fn turn(&self, x: &Tensor) -> Tensor {
        let pairs = x.to_kind(Kind::Float).unflatten(-1, [-1, 2]).contiguous().view_as_complex();
        (pairs * &self.turns).view_as_real().flatten(3, 4).to_kind(x.kind())
    }
}

/// In f64 as the reference: `[length]` → `[length, dim / 2]`
fn angles(dim: i64, positions: &Tensor) -> Tensor {
    let exponents = Tensor::arange(dim / 2, (Kind::Double, positions.device())) * (2.0 / dim as f64);
    let frequencies = (exponents * -THETA.ln()).exp(); // [dim / 2]
    positions.outer(&frequencies)
}
