//! The inputs of the networks: positions, partitions, clean tokens, packed rows.
//!
//! Everything here is built from numbers on the host and holds integer tensors on a device. No layer is involved.
// B batch, L length, S positions, C clean tokens, K positions to decode

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The class of a row; `None` for "no class", as for classifier-free guidance.
pub type Class = Option<usize>;

/// Positions of tokens in the sequence, `[B, S]`.
#[derive(Clone, Debug)]
pub struct Positions {
    indices: Tensor<2, Int>,
    span: usize,
}

impl Positions {
    /// Positions from the host, one slice per row. Shorter rows are padded with position 0; outputs at the padding are
    /// meaningless.
    ///
    /// # Shapes
    /// `[B, S]`, S is the length of the longest row
    pub fn new(rows: &[Vec<usize>], device: &Device) -> Self {
        Self::padded(rows, 0, device)
    }

    /// As [`new`](Self::new), with every row padded to at least `width` positions.
    pub fn padded(rows: &[Vec<usize>], width: usize, device: &Device) -> Self {
        let width = longest(rows).max(width);
        Self { indices: to_tensor(rows, width, device, |&position| position as i32), span: span(rows) }
    }

    /// Positions `0..length` in each of `n_rows` rows.
    ///
    /// # Shapes
    /// `[n_rows, length]`
    pub fn all(n_rows: usize, length: usize, device: &Device) -> Self {
        let indices = Tensor::<1, Int>::arange(0..length as i64, device).unsqueeze::<2>(); // [1, L]
        Self { indices: indices.expand([n_rows, length]), span: length }
    }

    /// The positions of `range`, `[1, S]`, for a batch whose rows all have the same positions.
    pub(crate) fn range(range: Range<usize>, device: &Device) -> Self {
        let span = range.end;
        Self { indices: Tensor::<1, Int>::arange(range.start as i64..range.end as i64, device).unsqueeze(), span }
    }

    /// The positions behind `n` registers: each is larger by `n`.
    pub(crate) fn behind(&self, n: usize) -> Self {
        match n {
            0 => self.clone(),
            _ => Self { indices: self.indices.clone() + n as i32, span: self.span + n },
        }
    }

    /// The positions of `front` in each row, then these.
    pub(crate) fn preceded_by(self, front: Range<usize>) -> Self {
        if front.is_empty() {
            return self;
        }
        let [n_rows, _] = self.indices.dims();
        let (span, before) = (self.span.max(front.end), Self::range(front, &self.indices.device()).indices);
        let before = before.clone().expand([n_rows, before.dims()[1]]);
        Self { indices: Tensor::cat(vec![before, self.indices], 1), span }
    }

    /// The positions, `[B, S]`.
    pub fn indices(&self) -> &Tensor<2, Int> {
        &self.indices
    }

    /// One more than the largest position: the shortest table that holds them all has this length.
    pub fn span(&self) -> usize {
        self.span
    }
}

fn longest<T>(rows: &[Vec<T>]) -> usize {
    rows.iter().map(Vec::len).max().unwrap_or(0)
}

fn span(rows: &[Vec<usize>]) -> usize {
    rows.iter().flatten().max().map_or(1, |last| last + 1)
}

// The rows as one tensor `[B, width]`, each padded with zeros.
fn to_tensor<T>(rows: &[Vec<T>], width: usize, device: &Device, to_int: impl Fn(&T) -> i32) -> Tensor<2, Int> {
    let mut values = Vec::with_capacity(rows.len() * width);
    for row in rows {
        assert!(row.len() <= width, "a row of {} numbers does not fit a width of {width}", row.len());
        values.extend(row.iter().map(&to_int));
        values.resize(values.len() + width - row.len(), 0);
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), device)
}

/// A split of every row into group 0 and group 1, `[B, L]`.
#[derive(Clone, Debug)]
pub struct Partition {
    groups: Tensor<2, Int>,
    sets: Option<Tensor<2, Int>>,
    classes: Option<Vec<Class>>,
}

impl Partition {
    /// Groups that are on the device already, each 0 or 1.
    ///
    /// # Shapes
    /// `[B, L]`
    pub fn new(groups: Tensor<2, Int>) -> Self {
        Self { groups, sets: None, classes: None }
    }

    /// Groups from the host: `true` is group 1, which has the role of the masked tokens. All rows have the same length.
    ///
    /// # Panics
    /// When they have not.
    pub fn from_rows(rows: &[Vec<bool>], device: &Device) -> Self {
        let length = rows.first().map_or(0, Vec::len);
        assert!(rows.iter().all(|row| row.len() == length), "rows of groups have one length");
        Self::new(to_tensor(rows, length, device, |&in_group_one| i32::from(in_group_one)))
    }

    /// The rows with their classes, for a class-conditional network. Without them, no row has a class.
    #[must_use]
    pub fn with_classes(self, classes: Vec<Class>) -> Self {
        Self { classes: Some(classes), ..self }
    }

    /// The partition with each group in ordered sets: a token is encoded from its group's tokens of its own set and of
    /// earlier ones. Without them, a group is one set.
    ///
    /// # Shapes
    /// places of the tokens' sets, from 0, below [`MAX_SETS`](crate::visibility::MAX_SETS), `[B, L]`
    ///
    /// # Panics
    /// When the rows differ in length.
    #[must_use]
    pub fn with_sets(self, rows: &[Vec<usize>]) -> Self {
        let (length, device) = (self.groups.dims()[1], self.groups.device());
        assert!(rows.iter().all(|row| row.len() == length), "every token belongs to a set");
        Self { sets: Some(to_tensor(rows, length, &device, |&set| set as i32)), ..self }
    }

    /// The place of each token's set, `[B, L]`, if they were given.
    pub fn sets(&self) -> Option<&Tensor<2, Int>> {
        self.sets.as_ref()
    }

    /// The class of each row, if they were given.
    pub fn classes(&self) -> Option<&[Class]> {
        self.classes.as_deref()
    }

    /// The groups, `[B, L]`.
    pub fn groups(&self) -> &Tensor<2, Int> {
        &self.groups
    }
}

/// The tokens that are known so far, in any order, with their positions in the sequence.
#[derive(Clone, Debug)]
pub struct CleanTokens {
    tokens: Tensor<2, Int>,
    positions: Positions,
    // Number of tokens in each row, `[B, 1]`; absent when no row has padding, which avoids the masks.
    lengths: Option<Tensor<2, Int>>,
    sets: Option<Tensor<2, Int>>,
    classes: Option<Vec<Class>>,
}

impl CleanTokens {
    /// Clean tokens from the host, one slice per row. Rows may differ in length and may be empty.
    ///
    /// # Shapes
    /// `[B, C]`, C is the length of the longest row
    ///
    /// # Panics
    /// When `tokens` and `positions` differ in shape.
    pub fn new(tokens: &[Vec<u32>], positions: &[Vec<usize>], device: &Device) -> Self {
        Self::padded(tokens, positions, 1, device)
    }

    /// As [`new`](Self::new), with every row padded to at least `width` tokens. Padding is hidden from every query. It
    /// keeps the number of distinct shapes low on devices that compile or tune a kernel for each shape.
    ///
    /// # Panics
    /// When `tokens` and `positions` differ in shape.
    pub fn padded(tokens: &[Vec<u32>], positions: &[Vec<usize>], width: usize, device: &Device) -> Self {
        let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
        assert!(lengths.iter().copied().eq(positions.iter().map(Vec::len)), "every clean token has one position");
        // At least one column, because an empty tensor is not a valid input; it is hidden where the row is empty.
        let width = longest(tokens).max(width).max(1);
        let has_padding = lengths.iter().any(|&length| length != width);
        let positions = Positions::padded(positions, width, device);
        let tokens = to_tensor(tokens, width, device, |&token| token as i32);
        Self {
            tokens,
            positions,
            lengths: has_padding.then(|| {
                let n_rows = lengths.len();
                let lengths: Vec<i32> = lengths.into_iter().map(|length| length as i32).collect();
                Tensor::from_data(TensorData::new(lengths, [n_rows, 1]), device)
            }),
            sets: None,
            classes: None,
        }
    }

    /// The rows with their tokens in ordered sets: a token is encoded from its own set and from earlier ones. Without them,
    /// the tokens of a row are one set.
    ///
    /// # Shapes
    /// places of the tokens' sets, from 0, below [`MAX_SETS`](crate::visibility::MAX_SETS), `[B, C]`
    ///
    /// # Panics
    /// When a row has more sets than the padded rows have tokens.
    #[must_use]
    pub fn with_sets(self, rows: &[Vec<usize>]) -> Self {
        let width = self.tokens.dims()[1];
        Self { sets: Some(to_tensor(rows, width, &self.tokens.device(), |&set| set as i32)), ..self }
    }

    /// The set of each token, `[B, C]`, if they were given.
    pub(crate) fn sets(&self) -> Option<&Tensor<2, Int>> {
        self.sets.as_ref()
    }

    /// The rows with their classes, for a class-conditional network. Without them, no row has a class.
    #[must_use]
    pub fn with_classes(self, classes: Vec<Class>) -> Self {
        Self { classes: Some(classes), ..self }
    }

    /// The class of each row, if they were given.
    pub fn classes(&self) -> Option<&[Class]> {
        self.classes.as_deref()
    }

    /// Token ids, `[B, C]`; 0 at the padding.
    pub fn tokens(&self) -> &Tensor<2, Int> {
        &self.tokens
    }

    /// Positions of the tokens, `[B, C]`.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Number of tokens in each row, `[B, 1]`; `None` when no row has padding.
    pub(crate) fn lengths(&self) -> Option<&Tensor<2, Int>> {
        self.lengths.as_ref()
    }
}

/// Clean tokens and positions to decode of several rows, concatenated into one row without padding ("varlen").
///
/// Labels say which row a token belongs to. Packing pays off where attention computes each label's block alone, as on
/// Flex. Where attention is masked, every query would be compared with the keys of all rows.
#[derive(Clone, Debug)]
pub struct PackedRows {
    tokens: Tensor<2, Int>,
    keys: PackedPositions,
    queries: PackedPositions,
    classes: Option<Vec<Class>>,
}

/// Positions of one kind of all packed rows, row after row.
#[derive(Clone, Debug)]
pub(crate) struct PackedPositions {
    /// The positions, `[1, S]`.
    pub(crate) positions: Positions,
    /// The row that each belongs to, `[1, S]`.
    pub(crate) labels: Tensor<2, Int>,
    /// How many belong to each row.
    pub(crate) lengths: Vec<usize>,
}

impl PackedPositions {
    fn new(rows: &[&[usize]], device: &Device) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let labels = lengths.iter().enumerate().flat_map(|(row, &length)| std::iter::repeat_n(row, length)).collect();
        Self::labelled(rows.concat(), labels, lengths, device)
    }

    fn labelled(positions: Vec<usize>, labels: Vec<usize>, lengths: Vec<usize>, device: &Device) -> Self {
        let labels = to_tensor(&[labels], positions.len(), device, |&label| label as i32);
        Self { positions: Positions::new(&[positions], device), labels, lengths }
    }

    /// Each row's positions behind `n` registers, the `front` of which stand before the row's tokens. Also
    /// returns gather indices: for each new position, its index into `cat(front, tokens of all rows)`.
    pub(crate) fn behind(&self, n: usize, front: Range<usize>) -> (Self, Tensor<1, Int>) {
        let (device, n_front) = (self.labels.device(), front.len());
        let (mut index, mut labels, mut next) = (Vec::new(), Vec::new(), n_front);
        for (row, &length) in self.lengths.iter().enumerate() {
            index.extend((0..n_front).chain(next..next + length).map(|index| index as i32));
            labels.extend(std::iter::repeat_n(row as i32, n_front + length));
            next += length;
        }
        let n_positions = index.len();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [n_positions]), &device);
        let listed = self.positions.behind(n).preceded_by(front);
        let indices = listed.indices.select(1, index.clone());
        let labels = Tensor::from_data(TensorData::new(labels, [1, n_positions]), &device);
        let lengths = self.lengths.iter().map(|length| length + n_front).collect();
        (Self { positions: Positions { indices, span: listed.span }, labels, lengths }, index)
    }
}

impl PackedRows {
    /// Tokens, their positions, and the positions to decode, of each row.
    ///
    /// # Shapes
    /// tokens `[1, C]`, positions to decode `[1, K]`; C and K are sums over the rows
    ///
    /// # Panics
    /// When the numbers of rows differ, or a row has more or fewer tokens than positions.
    pub fn new(tokens: &[&[u32]], positions: &[&[usize]], queries: &[&[usize]], device: &Device) -> Self {
        assert_eq!(positions.len(), queries.len(), "clean tokens and positions to decode of the same rows");
        let lengths = tokens.iter().map(|row| row.len());
        assert!(lengths.eq(positions.iter().map(|row| row.len())), "every clean token has one position");
        let (mut tokens, mut keys) = (tokens.concat(), PackedPositions::new(positions, device));
        // An empty tensor is not a valid input: this token carries a label that no query has.
        if tokens.is_empty() {
            tokens.push(0);
            keys = PackedPositions::labelled(vec![0], vec![queries.len()], keys.lengths, device);
        }
        let n_tokens = tokens.len();
        let tokens = to_tensor(&[tokens], n_tokens, device, |&token| token as i32);
        Self { tokens, keys, queries: PackedPositions::new(queries, device), classes: None }
    }

    /// The rows with their classes, for a class-conditional network. Without them, no row has a class.
    #[must_use]
    pub fn with_classes(self, classes: Vec<Class>) -> Self {
        Self { classes: Some(classes), ..self }
    }

    /// The class of each row, if they were given.
    pub fn classes(&self) -> Option<&[Class]> {
        self.classes.as_deref()
    }

    /// Token ids of all rows, `[1, C]`.
    pub fn tokens(&self) -> &Tensor<2, Int> {
        &self.tokens
    }

    pub(crate) fn keys(&self) -> &PackedPositions {
        &self.keys
    }

    pub(crate) fn queries(&self) -> &PackedPositions {
        &self.queries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_with_padding_carry_their_lengths() {
        let device = Device::default();
        let even = CleanTokens::new(&[vec![5, 6], vec![7, 8]], &[vec![0, 3], vec![4, 1]], &device);
        assert!(even.lengths().is_none());
        assert_eq!(even.positions().span(), 5);
        let ragged = CleanTokens::new(&[vec![5, 6], vec![]], &[vec![0, 3], vec![]], &device);
        let lengths = ragged.lengths().unwrap().clone().try_into_vec_as::<i32>().unwrap();
        assert_eq!(lengths, [2, 0]);
    }

    #[test]
    fn packed_rows_are_concatenated_and_labelled() {
        let device = Device::default();
        let rows = PackedRows::new(&[&[5, 6], &[], &[7]], &[&[0, 3], &[], &[2]], &[&[1], &[0, 1], &[]], &device);
        let ints = |tensor: &Tensor<2, Int>| tensor.clone().try_into_vec_as::<i32>().unwrap();
        assert_eq!(ints(rows.tokens()), [5, 6, 7]);
        assert_eq!(ints(&rows.keys().labels), [0, 0, 2]);
        assert_eq!(ints(&rows.queries().labels), [0, 1, 1]);
        assert_eq!((&rows.keys().lengths[..], &rows.queries().lengths[..]), (&[2, 0, 1][..], &[1, 2, 0][..]));

        let empty = PackedRows::new(&[&[], &[]], &[&[], &[]], &[&[1], &[2]], &device);
        assert_eq!((ints(empty.tokens()), ints(&empty.keys().labels)), (vec![0], vec![2]));
    }
}
