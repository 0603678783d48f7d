//! The layers that every model here is made of: linear, convolution, norms, embedding, attention over heads.
//! Knows shapes and, of adapters, that a layer can have some; each layer reads the keys `weight` and `bias` of its section.

use tch::{Device, Kind, Tensor};

use super::lora::{Shape, Site};
use super::weights::{Section, WeightsError};

/// Vectors from which oneDNN multiplies faster than libtorch's BLAS, whose kernels for processors of AMD are half as wide:
/// 240 GFLOP/s beside 110 on one core, and at 32 vectors both are level. libtorch asks oneDNN for convolutions only.
const VECTORS_FOR_ONEDNN: i64 = 64;

type Result<T> = std::result::Result<T, WeightsError>;

#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    site: Site,
}

impl Linear {
    pub fn load(section: &Section, input: i64, output: i64) -> Result<Self> {
        let bias = Some(section.tensor("bias", &[output])?);
        Ok(Self { bias, ..Self::load_without_bias(section, input, output)? })
    }

    pub fn load_without_bias(section: &Section, input: i64, output: i64) -> Result<Self> {
        let weight = section.tensor("weight", &[output, input])?;
        Ok(Self { weight, bias: None, site: section.site(Shape::Linear { input, output }) })
    }

    /// `[.., input]` → `[.., output]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let out = multiplied(x, &self.weight, self.bias.as_ref());
        let through = |x: Tensor, matrix: &Tensor| x.linear(matrix, None::<&Tensor>);
        self.site.adapted(x, out, |x, change| through(through(x.shallow_clone(), &change.down), &change.up))
    }
}

/// `[.., input]` × `[output, input]` + `[output]` → `[.., output]`
fn multiplied(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let (mut shape, [output, input]) = (x.size(), [weight.size()[0], weight.size()[1]]);
    let vectors: i64 = shape[..shape.len() - 1].iter().product();
    if x.device() != Device::Cpu || x.kind() != Kind::Float || vectors < VECTORS_FOR_ONEDNN {
        return x.linear(weight, bias);
    }
    // A row of pixels whose channels are last, and a kernel of one pixel: the same memory.
    let pixels = x.reshape([1, 1, vectors, input]).permute([0, 3, 1, 2]);
    let kernel = weight.view([output, input, 1, 1]);
    let out = pixels.mkldnn_convolution(&kernel, bias, [0, 0], [1, 1], [1, 1], 1); // [1, output, 1, vectors]
    shape.pop();
    shape.push(output);
    out.permute([0, 2, 3, 1]).reshape(shape)
}

/// A convolution over height and width with a square kernel, padded so that stride 1 keeps the size. On a CPU the kernel
/// has its channels last, and so has what it puts out: see `weights::kernels`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
    dilation: i64,
    site: Site,
}

impl Conv2d {
    pub fn load(section: &Section, input: i64, output: i64, kernel: i64) -> Result<Self> {
        Self::load_with_stride(section, input, output, kernel, 1)
    }

    pub fn load_with_stride(section: &Section, input: i64, output: i64, kernel: i64, stride: i64) -> Result<Self> {
        Ok(Self {
            weight: section.kernel("weight", [output, input, kernel, kernel])?,
            bias: section.tensor("bias", &[output])?,
            stride,
            padding: (kernel - 1) / 2,
            dilation: 1,
            site: section.site(Shape::Convolution { input, output, kernel }),
        })
    }

    /// The kernel's points `dilation` apart; padded so that stride 1 still keeps the size.
    #[must_use]
    pub fn dilated(self, dilation: i64) -> Self {
        Self { padding: self.padding * dilation, dilation, ..self }
    }

    /// For callers that pad in a way of their own.
    #[must_use]
    pub fn without_padding(self) -> Self {
        Self { padding: 0, ..self }
    }

    /// `[batch, input, h, w]` → `[batch, output, ⌈h/stride⌉, ⌈w/stride⌉]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (stride, padding, dilation) = ([self.stride; 2], [self.padding; 2], [self.dilation; 2]);
        let out = if x.device() == Device::Cpu {
            // As `conv2d` would, but with one thread too, where a kernel of one pixel would go another way.
            x.mkldnn_convolution(&self.weight, Some(&self.bias), padding, stride, dilation, 1)
        } else {
            x.conv2d(&self.weight, Some(&self.bias), stride, padding, dilation, 1)
        };
        self.adapted(x, out)
    }

    /// What a caller computes in a way of its own from kernel `[output, input, side, side]` and bias `[output]`, where it
    /// would else show `x` to `forward`. Rows with adapters need `x`; for the others it is not made.
    pub fn computed(&self, compute: impl FnOnce(&Tensor, &Tensor) -> Tensor, x: impl FnOnce() -> Tensor) -> Tensor {
        let out = compute(&self.weight, &self.bias);
        if self.site.is_bare() { out } else { self.adapted(&x(), out) }
    }

    fn adapted(&self, x: &Tensor, out: Tensor) -> Tensor {
        let (stride, padding, dilation) = ([self.stride; 2], [self.padding; 2], [self.dilation; 2]);
        self.site.adapted(x, out, |x, change| {
            let x = x.conv2d(&change.down, None::<&Tensor>, stride, padding, dilation, 1);
            x.conv2d(&change.up, None::<&Tensor>, 1, 0, 1, 1)
        })
    }
}

#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    pub fn load(section: &Section, channels: i64, groups: i64, eps: f64) -> Result<Self> {
        let (weight, bias) = (section.tensor("weight", &[channels])?, section.tensor("bias", &[channels])?);
        Ok(Self { weight, bias, groups, eps })
    }

    /// `[batch, channels, ..]` → the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    channels: i64,
    eps: f64,
}

impl LayerNorm {
    pub fn load(section: &Section, channels: i64, eps: f64) -> Result<Self> {
        let (weight, bias) = (section.tensor("weight", &[channels])?, section.tensor("bias", &[channels])?);
        Ok(Self { weight, bias, channels, eps })
    }

    /// `[.., channels]` → the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.channels], Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    pub fn load(section: &Section, entries: i64, channels: i64) -> Result<Self> {
        Ok(Self { weight: section.tensor("weight", &[entries, channels])? })
    }

    /// `[..]` of i64 → `[.., channels]`
    pub fn forward(&self, indices: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight, indices, -1, false, false)
    }
}

/// Scaled dot-product attention. `query` is `[batch, length, channels]`, `key` and `value` may have another length.
/// libtorch's kernels keep the sums in f32 whatever the dtype, which is what `upcast_attention` asks for.
pub fn attend(query: &Tensor, key: &Tensor, value: &Tensor, heads: i64, causal: bool) -> Tensor {
    attend_with(query, key, value, heads, None, causal)
}

/// [`attend`] with a `bias` of f32 that is added to the logits, of a shape that spreads to `[batch, heads, length, _]`.
pub fn attend_biased(query: &Tensor, key: &Tensor, value: &Tensor, heads: i64, bias: Option<&Tensor>) -> Tensor {
    attend_with(query, key, value, heads, bias, false)
}

fn attend_with(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: i64,
    bias: Option<&Tensor>,
    causal: bool,
) -> Tensor {
    let (batch, length, channels) = (query.size()[0], query.size()[1], query.size()[2]);
    let split = |x: &Tensor| x.view([batch, -1, heads, channels / heads]).transpose(1, 2); // [batch, heads, length, _]
    let (query, key, value) = (split(query), split(key), split(value));
    Tensor::scaled_dot_product_attention(&query, &key, &value, bias, 0.0, causal, None, false)
        .transpose(1, 2)
        .reshape([batch, length, channels])
}
