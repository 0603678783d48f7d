//! A 3×3 convolution of a picture whose pixels are each repeated twice both ways, without making that picture.
//! Knows kernels and pixels; does not know which layer asks.
//!
//! Of three neighbours in a line of repeated pixels two are the same one, so their weights can be added first: with the
//! kernel `a b c` an even place reads `a` of the pixel before and `b + c` of its own, an odd one `a + b` of its own and `c`
//! of the next. That makes four kernels of 2×2, one for each parity of row and column, and 16 products where there were 36.

use tch::{Kind, Tensor};

/// Pixels of the small picture from which it pays to add up the kernel: below, the kernel is the larger of both.
const PIXELS_TO_PAY: i64 = 32 * 32;

/// Whether it is the faster way, and no less exact: sums of weights in 16 bits are.
pub(super) fn pays(x: &Tensor) -> bool {
    let size = x.size();
    x.kind() == Kind::Float && size[2] * size[3] >= PIXELS_TO_PAY
}

/// `[batch, input, h, w]`, `weight` `[output, input, 3, 3]` and `bias` `[output]` → `[batch, output, 2h, 2w]`, padded with
/// one zero all around.
pub(super) fn convolved(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let (size, output) = (x.size(), weight.size()[0]);
    let (height, width) = (size[2], size[3]);
    let channels_last = Tensor::empty([size[0], 2 * height, 2 * width, output], (x.kind(), x.device()));
    let out = channels_last.permute([0, 3, 1, 2]); // [batch, output, 2h, 2w]
    for (row, by_row) in (0..).zip(halves(weight, 2)) {
        for (column, kernel) in (0..).zip(halves(&by_row, 3)) {
            // Padded on all sides: a row and a column more than there are places of this parity.
            let all = x.conv2d(&kernel, Some(bias), [1, 1], [1, 1], [1, 1], 1); // [batch, output, h + 1, w + 1]
            let mut places = out.slice(2, row, None, 2).slice(3, column, None, 2); // [batch, output, h, w]
            places.copy_(&all.narrow(2, row, height).narrow(3, column, width));
        }
    }
    out
}

/// The weights along an axis of 3 that even places see, and odd ones: each an axis of 2.
fn halves(weight: &Tensor, axis: i64) -> [Tensor; 2] {
    let [a, b, c] = [0, 1, 2].map(|index| weight.narrow(axis, index, 1));
    [Tensor::cat(&[&a, &(&b + &c)], axis), Tensor::cat(&[&(&a + &b), &c], axis)]
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn it_is_the_convolution_of_the_repeated_picture() {
        let _without_gradients = tch::no_grad_guard();
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        for (height, width) in [(1, 1), (3, 2), (5, 8)] {
            let (x, weight, bias) = (random(&[2, 3, height, width]), random(&[4, 3, 3, 3]), random(&[4]));
            let repeated = x.upsample_nearest2d([2 * height, 2 * width], None, None);
            let expected = repeated.conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1);
            let difference = (convolved(&x, &weight, &bias) - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "{height}x{width}: {difference}");
        }
    }
}
