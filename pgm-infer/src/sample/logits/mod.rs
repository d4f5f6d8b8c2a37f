//! Logits at the positions of a step, and how tokens are drawn from them.
//!
//! A network gives hidden states and a head. The head runs over a limited number of positions at a time, and each chunk of
//! logits is read before the next is computed: no tensor of all logits exists. A chunk in host memory is read there
//! (`host.rs`). On any other device the logits stay on it, and sums and single blocks come to the host (`device.rs`).
//!
//! Shapes: B rows, K positions, H hidden, V classes, N positions of all rows.

mod chunk_size;
mod device;
mod guided;
mod host;
mod reading;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData};

use crate::InferError;
use crate::sample::draw::{DrawSettings, DrawnToken};
use chunk_size::chunk_size;
pub(crate) use chunk_size::in_host_memory;
pub use guided::GuidedRow;
use reading::device_error;
pub(crate) use reading::finish;
pub use reading::{Alternatives, LogitStats, PositionDraw, PositionQuery, PositionReading, Wait};

/// The last layer of a network: hidden states `[B, K, H]` to logits `[B, K, V]`.
pub type Head<'a> = Box<dyn Fn(Tensor<3>) -> Tensor<3> + 'a>;

/// Logits at some positions of each row.
pub struct Logits<'a> {
    parts: Vec<Part>,
    // Of each row: its part, and the index of its first position there.
    rows: Vec<(usize, usize)>,
    head: Head<'a>,
    computes_all: bool,
    // Of each row; shorter where the rest is not guided.
    guided: Vec<Option<GuidedRow>>,
}

// Positions that are computed together.
enum Part {
    // [N, V]
    Host { values: Vec<f32>, n_classes: usize },
    // [N, V]
    Device(Tensor<2>),
    // [B, K, H]
    Hidden(Tensor<3>),
}

impl std::fmt::Debug for Logits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logits").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Logits<'static> {
    /// Logits `[B, K, V]` that are computed already; they stay on their device unless that is the CPU.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails.
    pub fn new(logits: Tensor<3>) -> Result<Self, InferError> {
        let [n_rows, n_positions, n_classes] = logits.dims();
        let part = if in_host_memory(&logits.device()) {
            Part::Host { values: logits.try_into_vec_as::<f32>().map_err(device_error)?, n_classes }
        } else {
            Part::Device(logits.reshape([n_rows * n_positions, n_classes]))
        };
        Ok(Self::of_part(part, n_rows, n_positions))
    }

    /// Logits in host memory: that of a class is `values[(row * n_positions + index) * n_classes + class]`.
    pub fn from_host(values: Vec<f32>, n_positions: usize, n_classes: usize) -> Self {
        let n_rows = values.len().checked_div(n_positions * n_classes).unwrap_or(0);
        Self::of_part(Part::Host { values, n_classes }, n_rows, n_positions)
    }

    fn of_part(part: Part, n_rows: usize, n_positions: usize) -> Self {
        let rows = (0..n_rows).map(|row| (0, row * n_positions)).collect();
        Self { parts: vec![part], rows, head: Box::new(|hidden| hidden), computes_all: false, guided: Vec::new() }
    }
}

impl<'a> Logits<'a> {
    /// Hidden states `[B, K, H]` with the head that makes logits of them. Rows with fewer than K positions are padded.
    pub fn from_hidden(hidden: Tensor<3>, head: Head<'a>) -> Self {
        let [n_rows, n_positions, _] = hidden.dims();
        Self::from_places(hidden, (0..n_rows).map(|row| row * n_positions).collect(), head)
    }

    /// As [`from_hidden`](Self::from_hidden) for packed rows: hidden states `[1, N, H]`, and how many of the N positions
    /// each row has.
    pub fn from_packed(hidden: Tensor<3>, counts: impl Iterator<Item = usize>, head: Head<'a>) -> Self {
        let starts = counts.scan(0, |next, count| Some(std::mem::replace(next, *next + count)));
        Self::from_places(hidden, starts.collect(), head)
    }

    /// As [`from_hidden`](Self::from_hidden) for rows whose positions stand anywhere in the hidden states `[B, N, H]`: row
    /// after row, each from the given one of the `B N` places.
    pub fn from_places(hidden: Tensor<3>, starts: Vec<usize>, head: Head<'a>) -> Self {
        let rows = starts.into_iter().map(|start| (0, start)).collect();
        Self { parts: vec![Part::Hidden(hidden)], rows, head, computes_all: false, guided: Vec::new() }
    }

    /// As [`from_hidden`](Self::from_hidden) for rows that were computed in several parts; each part names its rows.
    pub fn from_parts(parts: Vec<(Tensor<3>, Vec<usize>)>, head: Head<'a>) -> Self {
        let n_rows = parts.iter().map(|(_, rows)| rows.len()).sum();
        let mut rows = vec![(0, 0); n_rows];
        for (part, (hidden, members)) in parts.iter().enumerate() {
            let n_positions = hidden.dims()[1];
            members.iter().enumerate().for_each(|(index, &row)| rows[row] = (part, index * n_positions));
        }
        let parts = parts.into_iter().map(|(hidden, _)| Part::Hidden(hidden)).collect();
        Self { parts, rows, head, computes_all: false, guided: Vec::new() }
    }

    /// The same logits, with the head run at every position of the hidden states even if only some are read. This is what
    /// some published samplers do; it costs time and changes nothing else.
    pub fn computed_everywhere(self) -> Self {
        Self { computes_all: true, ..self }
    }

    /// The same logits, with those of each row that has a [`GuidedRow`] guided: the other row is read at the same positions.
    ///
    /// # Panics
    /// When there are more than the rows, or a row without the class does not exist.
    #[must_use]
    pub fn guided(self, guided: Vec<Option<GuidedRow>>) -> Self {
        assert!(guided.len() <= self.rows.len(), "one for each row at most");
        assert!(guided.iter().flatten().all(|row| row.without_class < self.rows.len()), "rows of these logits");
        Self { guided, ..self }
    }

    fn guide(&self, row: usize) -> Option<GuidedRow> {
        self.guided.get(row).copied().flatten()
    }

    /// One token for each of `picks`, in their order; the classes `excluded` (the mask among them) are never drawn.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails, [`InferError::NotFinite`] for logits that no token can be drawn from.
    pub fn draw(
        &self,
        picks: &[PositionDraw],
        excluded: &[usize],
        settings: &DrawSettings,
    ) -> Result<Vec<DrawnToken>, InferError> {
        let query = |draw: &PositionDraw| PositionQuery {
            draw: *draw,
            settings: *settings,
            stats: false,
            n_alternatives: 0,
            allowed: None,
        };
        let queries: Vec<PositionQuery<'_>> = picks.iter().map(query).collect();
        let readings = finish(self.read(&queries, excluded, Wait::Blocking))?;
        let token = |(reading, pick): (PositionReading, &PositionDraw)| {
            reading.token.ok_or(InferError::NotFinite { position: pick.index })
        };
        readings.into_iter().zip(picks).map(token).collect()
    }

    /// Answers all queries, in their order; the classes `excluded` (the mask among them) do not exist for them. With
    /// [`Wait::Blocking`] the future is ready when it is first polled.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails.
    pub async fn read(
        &self,
        queries: &[PositionQuery<'_>],
        excluded: &[usize],
        wait: Wait,
    ) -> Result<Vec<PositionReading>, InferError> {
        let mut readings = vec![PositionReading::default(); queries.len()];
        for (index, part) in self.parts.iter().enumerate() {
            let place = |query: &PositionQuery<'_>| {
                let (part, start) = self.rows[query.draw.row];
                (part == index && self.guide(query.draw.row).is_none()).then_some(start + query.draw.index)
            };
            let members = queries.iter().enumerate().filter_map(|(member, query)| Some((member, place(query)?)));
            let (members, of_part): (Vec<usize>, Vec<_>) =
                members.map(|(member, place)| (member, (place, queries[member]))).unzip();
            if !of_part.is_empty() {
                let found = self.read_part(part, &of_part, excluded, wait).await?;
                members.into_iter().zip(found).for_each(|(member, reading)| readings[member] = reading);
            }
        }
        self.read_guided(queries, excluded, wait, &mut readings).await?;
        Ok(readings)
    }

    async fn read_part(
        &self,
        part: &Part,
        queries: &[(usize, PositionQuery<'_>)],
        excluded: &[usize],
        wait: Wait,
    ) -> Result<Vec<PositionReading>, InferError> {
        let hidden = match part {
            Part::Host { values, n_classes } => return Ok(host::read(values, *n_classes, queries, excluded)),
            Part::Device(logits) => return device::read(logits, queries, excluded, wait).await,
            Part::Hidden(hidden) => hidden,
        };
        let [n_rows, n_positions, _] = hidden.dims();
        let mut wanted: Vec<usize> = if self.computes_all {
            (0..n_rows * n_positions).collect()
        } else {
            queries.iter().map(|(place, _)| *place).collect()
        };
        wanted.sort_unstable();
        wanted.dedup();
        let mut readings = vec![PositionReading::default(); queries.len()];
        for (places, hidden) in chunks(hidden, &wanted) {
            let logits = (self.head)(hidden);
            let [n_rows, n_positions, n_classes] = logits.dims();
            let logits = logits.reshape([n_rows * n_positions, n_classes]); // [N, V]
            let members = queries
                .iter()
                .enumerate()
                .filter_map(|(member, (place, query))| Some((member, (places.row_of(*place)?, *query))));
            let (members, of_chunk): (Vec<usize>, Vec<_>) = members.unzip();
            let found = if in_host_memory(&logits.device()) {
                host::read(&wait.read(logits).await?, n_classes, &of_chunk, excluded)
            } else {
                device::read(&logits, &of_chunk, excluded, wait).await?
            };
            members.into_iter().zip(found).for_each(|(member, reading)| readings[member] = reading);
        }
        Ok(readings)
    }
}

// Which positions a chunk computes.
enum Places<'a> {
    All,
    // Ascending.
    Some(&'a [usize]),
}

impl Places<'_> {
    fn row_of(&self, place: usize) -> Option<usize> {
        match self {
            Self::All => Some(place),
            Self::Some(places) => places.binary_search(&place).ok(),
        }
    }
}

// Hidden states in one piece if they fit into a chunk, otherwise those at the wanted places in chunks `[1, n, H]`.
fn chunks<'a>(hidden: &Tensor<3>, wanted: &'a [usize]) -> impl Iterator<Item = (Places<'a>, Tensor<3>)> {
    let [n_rows, n_positions, width] = hidden.dims();
    let (n, device) = (n_rows * n_positions, hidden.device());
    let size = chunk_size(&device);
    let whole = (n <= size).then(|| (Places::All, hidden.clone()));
    let flat = hidden.clone().reshape([n, width]);
    let wanted = if whole.is_some() { &[][..] } else { wanted };
    whole.into_iter().chain(wanted.chunks(size).map(move |places| {
        let mut index: Vec<i32> = places.iter().map(|&place| place as i32).collect();
        if !in_host_memory(&device) {
            // Kernels are compiled and tuned for each shape, so there are few shapes.
            index.resize(index.len().next_multiple_of(64), 0);
        }
        let n = index.len();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [n]), &device);
        (Places::Some(places), flat.clone().select(0, index).unsqueeze_dim(0))
    }))
}

/// Runs a head over all positions of hidden states `[B, K, H]`, some hundred at a time: for each chunk the range of its
/// positions, row after row, and their logits `[n, V]`. The gradient flows.
pub fn logit_chunks(
    hidden: Tensor<3>,
    head: impl Fn(Tensor<3>) -> Tensor<3>,
) -> impl Iterator<Item = (Range<usize>, Tensor<2>)> {
    let [n_rows, n_positions, width] = hidden.dims();
    let n = n_rows * n_positions;
    let size = chunk_size(&hidden.device());
    let flat = hidden.clone().reshape([1, n, width]);
    (0..n).step_by(size).map(move |start| {
        let range = start..(start + size).min(n);
        // A single chunk keeps its shape, so that rounding is the same as without chunks.
        let hidden = if n <= size { hidden.clone() } else { flat.clone().narrow(1, start, range.len()) };
        let logits = head(hidden);
        let n_classes = logits.dims()[2];
        (range.clone(), logits.reshape([range.len(), n_classes]))
    })
}
