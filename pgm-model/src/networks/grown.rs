//! A tensor that grows by rows without being copied each time.
// C tokens, N new tokens, W width

use burn::tensor::Tensor;

/// Vectors of the tokens of one row, `[1, C, W]`. There is room for more, so most appends copy only what is new; a clone
/// shares the memory until one of the two grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Grown {
    // [1, capacity, W]
    memory: Option<Tensor<3>>,
    len: usize,
}

impl Grown {
    /// Appends vectors, `[1, N, W]`.
    pub(super) fn append(&mut self, new: Tensor<3>) {
        let [_, n_new, width] = new.dims();
        let (start, len) = (self.len, self.len + n_new);
        let capacity = self.memory.as_ref().map_or(0, |memory| memory.dims()[1]);
        let memory = match self.memory.take() {
            Some(memory) if len <= capacity => memory,
            memory => {
                let capacity = (len + len / 2).next_multiple_of(32);
                let larger = Tensor::zeros([1, capacity, width], (&new.device(), new.dtype()));
                match memory {
                    Some(memory) => larger.slice_assign([0..1, 0..start, 0..width], memory.narrow(1, 0, start)),
                    None => larger,
                }
            }
        };
        self.memory = Some(memory.slice_assign([0..1, start..len, 0..width], new));
        self.len = len;
    }

    /// The vectors, `[1, C, W]`; `None` if there are none.
    pub(super) fn get(&self) -> Option<Tensor<3>> {
        self.memory.clone().filter(|_| self.len > 0).map(|memory| memory.narrow(1, 0, self.len))
    }

    /// Keeps the first `len` vectors, at most.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Bytes of memory, room for more included.
    pub(super) fn n_bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.shape().num_elements() * memory.dtype().size())
    }
}
