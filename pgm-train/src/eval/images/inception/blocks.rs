//! The mixed blocks, under the names of the weights file.
// B batch, C channels, H height, W width

use burn::tensor::{Device, Tensor};

use super::convolution::{Convolution, Shape, max_around, mean_around, shrink};
use super::weights::NamedWeights;
use crate::TrainError;

/// Reads the convolutions of a block, one after the other.
pub(super) struct BlockReader<'a, 'b> {
    pub weights: &'a mut NamedWeights<'b>,
    pub block: &'static str,
    pub device: &'a Device,
}

impl BlockReader<'_, '_> {
    /// The reader of another block.
    pub fn of(&mut self, block: &'static str) -> &mut Self {
        self.block = block;
        self
    }

    // A convolution that keeps height and width.
    fn same(&mut self, name: &str, channels: [usize; 2], kernel: [usize; 2]) -> Result<Convolution, TrainError> {
        let padding = kernel.map(|side| side / 2);
        self.read(name, Shape { channels, kernel, stride: 1, padding })
    }

    // A 3 x 3 convolution at every second pixel, without padding.
    fn halving(&mut self, name: &str, channels: [usize; 2]) -> Result<Convolution, TrainError> {
        self.read(name, Shape { channels, kernel: [3, 3], stride: 2, padding: [0, 0] })
    }

    fn read(&mut self, name: &str, shape: Shape) -> Result<Convolution, TrainError> {
        Convolution::read(self.weights, &format!("{}.{name}", self.block), shape, self.device)
    }
}

fn chain(layers: &[Convolution], x: Tensor<4>) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| layer.forward(x))
}

/// What stands in the last branch before its convolution, or instead of one.
#[derive(Clone, Copy, Debug)]
enum Pool {
    Mean,
    Max,
    Shrink,
}

impl Pool {
    fn forward(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Mean => mean_around(x),
            Self::Max => max_around(x),
            Self::Shrink => shrink(x),
        }
    }
}

/// A branch: convolutions in a chain, then, in the last blocks, two side by side.
#[derive(Debug)]
struct Branch {
    chain: Vec<Convolution>,
    fork: Vec<Convolution>,
}

impl Branch {
    fn new(chain: Vec<Convolution>) -> Self {
        Self { chain, fork: Vec::new() }
    }

    fn forward(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let x = chain(&self.chain, x);
        if self.fork.is_empty() { vec![x] } else { self.fork.iter().map(|layer| layer.forward(x.clone())).collect() }
    }
}

/// Branches side by side; the last is a pool and at most one convolution. Their channels are concatenated.
#[derive(Debug)]
pub(super) struct Mixed {
    branches: Vec<Branch>,
    pool: Pool,
    after_pool: Vec<Convolution>,
}

impl Mixed {
    /// # Shapes
    /// `[B, C in, H, W] -> [B, C out, H', W']`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut parts: Vec<Tensor<4>> = self.branches.iter().flat_map(|branch| branch.forward(x.clone())).collect();
        parts.push(chain(&self.after_pool, self.pool.forward(x)));
        Tensor::cat(parts, 1)
    }

    /// Mixed_5b to 5d.
    pub fn a(read: &mut BlockReader, n_in: usize, pooled: usize) -> Result<Self, TrainError> {
        let branches = vec![
            Branch::new(vec![read.same("branch1x1", [n_in, 64], [1, 1])?]),
            Branch::new(vec![
                read.same("branch5x5_1", [n_in, 48], [1, 1])?,
                read.same("branch5x5_2", [48, 64], [5, 5])?,
            ]),
            Branch::new(vec![
                read.same("branch3x3dbl_1", [n_in, 64], [1, 1])?,
                read.same("branch3x3dbl_2", [64, 96], [3, 3])?,
                read.same("branch3x3dbl_3", [96, 96], [3, 3])?,
            ]),
        ];
        let after_pool = vec![read.same("branch_pool", [n_in, pooled], [1, 1])?];
        Ok(Self { branches, pool: Pool::Mean, after_pool })
    }

    /// Mixed_6a.
    pub fn b(read: &mut BlockReader, n_in: usize) -> Result<Self, TrainError> {
        let branches = vec![
            Branch::new(vec![read.halving("branch3x3", [n_in, 384])?]),
            Branch::new(vec![
                read.same("branch3x3dbl_1", [n_in, 64], [1, 1])?,
                read.same("branch3x3dbl_2", [64, 96], [3, 3])?,
                read.halving("branch3x3dbl_3", [96, 96])?,
            ]),
        ];
        Ok(Self { branches, pool: Pool::Shrink, after_pool: Vec::new() })
    }

    /// Mixed_6b to 6e. `inner` are the channels between the 7 x 1 and 1 x 7 convolutions.
    pub fn c(read: &mut BlockReader, inner: usize) -> Result<Self, TrainError> {
        let (across, down) = ([1, 7], [7, 1]);
        let branches = vec![
            Branch::new(vec![read.same("branch1x1", [768, 192], [1, 1])?]),
            Branch::new(vec![
                read.same("branch7x7_1", [768, inner], [1, 1])?,
                read.same("branch7x7_2", [inner, inner], across)?,
                read.same("branch7x7_3", [inner, 192], down)?,
            ]),
            Branch::new(vec![
                read.same("branch7x7dbl_1", [768, inner], [1, 1])?,
                read.same("branch7x7dbl_2", [inner, inner], down)?,
                read.same("branch7x7dbl_3", [inner, inner], across)?,
                read.same("branch7x7dbl_4", [inner, inner], down)?,
                read.same("branch7x7dbl_5", [inner, 192], across)?,
            ]),
        ];
        let after_pool = vec![read.same("branch_pool", [768, 192], [1, 1])?];
        Ok(Self { branches, pool: Pool::Mean, after_pool })
    }

    /// Mixed_7a.
    pub fn d(read: &mut BlockReader) -> Result<Self, TrainError> {
        let branches = vec![
            Branch::new(vec![read.same("branch3x3_1", [768, 192], [1, 1])?, read.halving("branch3x3_2", [192, 320])?]),
            Branch::new(vec![
                read.same("branch7x7x3_1", [768, 192], [1, 1])?,
                read.same("branch7x7x3_2", [192, 192], [1, 7])?,
                read.same("branch7x7x3_3", [192, 192], [7, 1])?,
                read.halving("branch7x7x3_4", [192, 192])?,
            ]),
        ];
        Ok(Self { branches, pool: Pool::Shrink, after_pool: Vec::new() })
    }

    /// Mixed_7b, and 7c with the largest instead of the mean of its pool.
    pub fn e(read: &mut BlockReader, n_in: usize) -> Result<Self, TrainError> {
        let pool = if read.block == "Mixed_7c" { Pool::Max } else { Pool::Mean };
        let (across, down) = ([1, 3], [3, 1]);
        let branches = vec![
            Branch::new(vec![read.same("branch1x1", [n_in, 320], [1, 1])?]),
            Branch {
                chain: vec![read.same("branch3x3_1", [n_in, 384], [1, 1])?],
                fork: vec![
                    read.same("branch3x3_2a", [384, 384], across)?,
                    read.same("branch3x3_2b", [384, 384], down)?,
                ],
            },
            Branch {
                chain: vec![
                    read.same("branch3x3dbl_1", [n_in, 448], [1, 1])?,
                    read.same("branch3x3dbl_2", [448, 384], [3, 3])?,
                ],
                fork: vec![
                    read.same("branch3x3dbl_3a", [384, 384], across)?,
                    read.same("branch3x3dbl_3b", [384, 384], down)?,
                ],
            },
        ];
        let after_pool = vec![read.same("branch_pool", [n_in, 192], [1, 1])?];
        Ok(Self { branches, pool, after_pool })
    }
}
