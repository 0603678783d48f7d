//! The network itself: a U-Net whose every block is a U-Net.
//! Transcribed from U-2-Net, `model/u2net.py`, `U2NETP`, with the batch norms folded into the convolutions; sections
//! are named as there.

use tch::Tensor;

use crate::torch::layers::Conv2d;
use crate::torch::resnet::height_width;
use crate::torch::weights::{Section, WeightsError};

type Result<T> = std::result::Result<T, WeightsError>;

/// Within a block, and what every block gives.
const MIDDLE: i64 = 16;
const OUTPUT: i64 = 64;
/// Of the blocks `stage1` to `stage6`; those of the way up, `stage5d` to `stage1d`, mirror the first five.
const STAGES: [Levels; 6] =
    [Levels::Pooled(7), Levels::Pooled(6), Levels::Pooled(5), Levels::Pooled(4), Levels::Dilated, Levels::Dilated];

/// One from each stage of the way up, and one from the deepest.
const SIDES: i64 = 6;

/// How far a block goes down, and by what it sees further.
#[derive(Clone, Copy, Debug)]
enum Levels {
    /// `RSU7` to `RSU4`: half the size at every level but the last, which dilates by 2.
    Pooled(usize),
    /// `RSU4F`: four levels of one size, which dilate by 1, 2, 4 and 8.
    Dilated,
}

#[derive(Debug)]
pub(super) struct Network {
    /// `stage1` to `stage6`
    down: Vec<Block>,
    /// `stage5d` to `stage1d`
    up: Vec<Block>,
    /// `side1` to `side6`
    sides: Vec<Conv2d>,
    outconv: Conv2d,
}

impl Network {
    pub(super) fn load(root: &Section) -> Result<Self> {
        let (mut down, mut up, mut sides) = (Vec::new(), Vec::new(), Vec::new());
        for (index, levels) in STAGES.into_iter().enumerate() {
            let (number, input) = (index + 1, if index == 0 { 3 } else { OUTPUT });
            down.push(Block::load(&root.at(format!("stage{number}")), levels, input)?);
            sides.push(Conv2d::load(&root.at(format!("side{number}")), OUTPUT, 1, 3)?);
        }
        for number in (1..STAGES.len()).rev() {
            up.push(Block::load(&root.at(format!("stage{number}d")), STAGES[number - 1], 2 * OUTPUT)?);
        }
        let outconv = Conv2d::load(&root.at("outconv"), SIDES, 1, 1)?;
        Ok(Self { down, up, sides, outconv })
    }

    /// `[batch, 3, h, w]` → `[batch, 1, h, w]` of 0..1
    pub(super) fn forward(&self, pixels: &Tensor) -> Tensor {
        let mut x = pixels.shallow_clone();
        let mut skips = Vec::with_capacity(self.down.len());
        for (index, block) in self.down.iter().enumerate() {
            x = block.forward(&if index == 0 { x } else { halved(&x) });
            skips.push(x.shallow_clone());
        }
        let mut found = vec![x.shallow_clone()]; // of stage6, stage5d, …, stage1d
        for (block, skip) in self.up.iter().zip(skips.iter().rev().skip(1)) {
            x = block.forward(&Tensor::cat(&[&resized(&x, skip), skip], 1));
            found.push(x.shallow_clone());
        }
        let guess = |(side, x): (&Conv2d, &Tensor)| resized(&side.forward(x), pixels);
        let guesses: Vec<_> = self.sides.iter().zip(found.iter().rev()).map(guess).collect(); // [batch, 1, h, w] each
        self.outconv.forward(&Tensor::cat(&guesses, 1)).sigmoid()
    }
}

/// A convolution whose batch norm is folded into it, and `ReLU`: `REBNCONV`.
#[derive(Debug)]
struct ConvRelu {
    conv_s1: Conv2d,
}

impl ConvRelu {
    fn load(section: &Section, input: i64, output: i64, dilation: i64) -> Result<Self> {
        Ok(Self { conv_s1: Conv2d::load(&section.at("conv_s1"), input, output, 3)?.dilated(dilation) })
    }

    /// `[batch, input, h, w]` → `[batch, output, h, w]`
    fn forward(&self, x: &Tensor) -> Tensor {
        self.conv_s1.forward(x).relu()
    }
}

#[derive(Debug)]
struct Block {
    rebnconvin: ConvRelu,
    /// `rebnconv1`, `rebnconv2`, …
    down: Vec<ConvRelu>,
    /// …, `rebnconv2d`, `rebnconv1d`
    up: Vec<ConvRelu>,
    levels: Levels,
}

impl Block {
    fn load(section: &Section, levels: Levels, input: i64) -> Result<Self> {
        let rebnconvin = ConvRelu::load(&section.at("rebnconvin"), input, OUTPUT, 1)?;
        let depth = levels.depth();
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for level in 1..=depth {
            let input = if level == 1 { OUTPUT } else { MIDDLE };
            let section = section.at(format!("rebnconv{level}"));
            down.push(ConvRelu::load(&section, input, MIDDLE, levels.dilation(level))?);
        }
        for level in (1..depth).rev() {
            let output = if level == 1 { OUTPUT } else { MIDDLE };
            let section = section.at(format!("rebnconv{level}d"));
            up.push(ConvRelu::load(&section, 2 * MIDDLE, output, levels.dilation(level))?);
        }
        Ok(Self { rebnconvin, down, up, levels })
    }

    /// `[batch, input, h, w]` → `[batch, 64, h, w]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let input = self.rebnconvin.forward(x);
        let mut x = input.shallow_clone();
        let mut skips = Vec::with_capacity(self.down.len());
        for (index, convolution) in self.down.iter().enumerate() {
            if self.levels.pools_before(index + 1) {
                x = halved(&x);
            }
            x = convolution.forward(&x);
            skips.push(x.shallow_clone());
        }
        skips.pop(); // the last level is where the way up begins
        for (convolution, skip) in self.up.iter().zip(skips.iter().rev()) {
            x = convolution.forward(&Tensor::cat(&[&resized(&x, skip), skip], 1));
        }
        x + input
    }
}

impl Levels {
    fn depth(self) -> usize {
        match self {
            Self::Pooled(depth) => depth,
            Self::Dilated => 4,
        }
    }

    fn dilation(self, level: usize) -> i64 {
        match self {
            Self::Pooled(depth) if level == depth => 2,
            Self::Pooled(_) => 1,
            Self::Dilated => 1 << (level - 1),
        }
    }

    fn pools_before(self, level: usize) -> bool {
        match self {
            Self::Pooled(depth) => 1 < level && level < depth,
            Self::Dilated => false,
        }
    }
}

/// `[batch, channels, h, w]` → `[batch, channels, ⌈h/2⌉, ⌈w/2⌉]`
fn halved(x: &Tensor) -> Tensor {
    x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], true)
}

/// As high and wide as the other.
fn resized(x: &Tensor, like: &Tensor) -> Tensor {
    let (height, width) = height_width(like);
    if height_width(x) == (height, width) {
        return x.shallow_clone();
    }
    x.upsample_bilinear2d([height, width], false, None, None)
}
