//! Which part of the inputs belongs to one of several processes.
//!
//! The files are laid one after the other, and each process has an equal range of their bytes. A file of at most one
//! range belongs to the process that has its middle. A longer file is divided among the processes whose ranges meet it:
//! Parquet by rows, large files of lines by bytes, so that each process reads its own range only. Any other file is read
//! whole by these processes, and its pieces are dealt out by their bytes.
//!
//! All of this is computed from the files' sizes, so every process finds the same division without asking another.

use std::fmt;
use std::str::FromStr;

use super::columns::parquet_rows;
use super::compression::Compression;
use super::format::FileFormat;
use super::input_file::InputFile;
use super::options::Documents;
use crate::error::DataError;

/// Smaller ranges of lines are not worth it: such a file is read whole, and its documents are dealt out evenly.
pub(crate) const LEAST_RANGE: u64 = 4 << 20;
/// The largest number of parts.
const MAX_PARTS: u64 = 100_000;

/// One of several parts of a preparation: `index` of `count`, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartIndex {
    index: u64,
    count: u64,
}

impl PartIndex {
    /// Part `index` of `count`.
    ///
    /// # Errors
    /// [`DataError::Option`] for an index that is not below the count, no parts, or more than 100000.
    pub fn new(index: u64, count: u64) -> Result<Self, DataError> {
        match count {
            0 => Err(DataError::Option("--shard I/N needs an N of at least 1".to_string())),
            _ if count > MAX_PARTS => {
                Err(DataError::Option(format!("--shard {index}/{count} has too many parts: at most {MAX_PARTS}")))
            }
            _ if index >= count => Err(DataError::Option(format!(
                "--shard {index}/{count} does not exist: parts are counted from 0, so the last one is {}/{count}",
                count - 1
            ))),
            _ => Ok(Self { index, count }),
        }
    }

    /// Its place among the parts, from 0.
    pub fn index(self) -> u64 {
        self.index
    }

    /// The number of parts.
    pub fn count(self) -> u64 {
        self.count
    }
}

impl fmt::Display for PartIndex {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// Parses `3/16`.
impl FromStr for PartIndex {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let refused = || {
            DataError::Option(format!(
                "--shard {text:?} is not I/N: write the part's index, counted from 0, and the number of parts, for example 0/16"
            ))
        };
        let (index, count) = text.split_once('/').ok_or_else(refused)?;
        let number = |text: &str| text.trim().parse().map_err(|_| refused());
        Self::new(number(index)?, number(count)?)
    }
}

/// What is read of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileRange {
    /// All of it.
    Whole,
    /// Lines between two bytes of the file. A line belongs to the range by where it starts, see `line_border`.
    Lines {
        /// The first byte.
        start: u64,
        /// The byte after the last one.
        end: u64,
    },
    /// Rows of a Parquet file.
    Rows {
        /// The first row, from 0.
        start: u64,
        /// The row after the last one.
        end: u64,
    },
}

/// A piece of the text: the piece with this index of what is read of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PiecePlace {
    /// Index of the file.
    pub(crate) file: u64,
    /// What is read of it.
    pub(crate) range: FileRange,
    /// Index of the piece in the range.
    pub(crate) index: u64,
}

/// A part's share of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileShare {
    /// Index of the file.
    pub(crate) file: usize,
    /// What is read of it.
    pub(crate) range: FileRange,
    /// How its pieces are dealt out, where several parts read it whole.
    pub(crate) deal: Option<Deal>,
}

/// Deals pieces out to the parts that read one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deal {
    // Bytes of the file in each part's range.
    weights: Vec<u64>,
    given: Vec<u64>,
    mine: usize,
}

impl Deal {
    /// Whether the next piece is this part's. It goes to the part that has too little by most.
    pub(crate) fn next(&mut self, source_bytes: u64) -> bool {
        let bytes = source_bytes.max(1);
        let all = u128::from(self.given.iter().sum::<u64>() + bytes);
        let weight: u128 = self.weights.iter().map(|&weight| u128::from(weight)).sum();
        let lack = |part: usize| {
            (u128::from(self.weights[part]) * all) as i128 - (u128::from(self.given[part]) * weight) as i128
        };
        // Of equal ones the first.
        let part = (0..self.weights.len()).rev().max_by_key(|&part| lack(part)).unwrap_or(0);
        self.given[part] += bytes;
        part == self.mine
    }

    /// Whether this part is the first one of the file, which also keeps what belongs to no piece.
    pub(crate) fn is_first(&self) -> bool {
        self.mine == 0
    }
}

/// The files of which a part has something, in order.
pub(crate) fn shares(
    files: &[InputFile],
    documents: &Documents,
    detokenized: bool,
    part: PartIndex,
    least_range: u64,
) -> Result<Vec<FileShare>, DataError> {
    let size = |file: &InputFile| Ok(file.content().metadata().map_err(DataError::io("read", file.path()))?.len());
    let sizes: Vec<u64> = files.iter().map(size).collect::<Result<_, DataError>>()?;
    let ranges = Ranges { total: sizes.iter().sum(), count: part.count };
    let (mut found, mut start) = (Vec::new(), 0);
    for (index, (file, &size)) in files.iter().zip(&sizes).enumerate() {
        let whole = FileShare { file: index, range: FileRange::Whole, deal: None };
        let (first, last) = (ranges.part_at(start), ranges.part_at(start + size.saturating_sub(1)));
        if first == last || ranges.fits(size) {
            if ranges.part_at(start + size / 2) == part.index {
                found.push(whole);
            }
        } else if (first..=last).contains(&part.index) {
            // The part's bytes of the file, from the file's start.
            let within = |part: u64| ranges.start(part).clamp(start, start + size) - start;
            let (from, to) = (within(part.index), within(part.index + 1));
            let lines = match file.format {
                FileFormat::JsonLines => true,
                FileFormat::Text => *documents == Documents::Line && !detokenized,
                _ => false,
            };
            let plain = file.compression == Compression::None && file.encoding.is_none();
            if file.format == FileFormat::Parquet {
                let n_rows = parquet_rows(file)?;
                let row = |byte: u64| (u128::from(byte) * u128::from(n_rows)).div_ceil(u128::from(size)) as u64;
                let range = FileRange::Rows { start: row(from), end: row(to) };
                found.push(FileShare { range, ..whole });
            } else if lines && plain && size / (last - first + 1) >= least_range {
                found.push(FileShare { range: FileRange::Lines { start: from, end: to }, ..whole });
            } else {
                let weights: Vec<u64> = (first..=last).map(|part| within(part + 1) - within(part)).collect();
                let given = vec![0; weights.len()];
                let deal = Some(Deal { weights, given, mine: (part.index - first) as usize });
                found.push(FileShare { deal, ..whole });
            }
        }
        start += size;
    }
    Ok(found)
}

/// Equal ranges of all bytes.
struct Ranges {
    total: u64,
    count: u64,
}

impl Ranges {
    /// The first byte of a part.
    fn start(&self, part: u64) -> u64 {
        (u128::from(part) * u128::from(self.total) / u128::from(self.count)) as u64
    }

    /// The part that has a byte. A byte after all others is the last part's.
    fn part_at(&self, byte: u64) -> u64 {
        if byte >= self.total {
            return self.count - 1;
        }
        let parts = ((u128::from(byte) + 1) * u128::from(self.count)).div_ceil(u128::from(self.total)) as u64;
        parts - 1
    }

    /// Whether a file is not longer than a range.
    fn fits(&self, size: u64) -> bool {
        u128::from(size) * u128::from(self.count) <= u128::from(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(weights: &[u64], pieces: &[u64]) -> Vec<usize> {
        let mut deals: Vec<Deal> = (0..weights.len())
            .map(|mine| Deal { weights: weights.to_vec(), given: vec![0; weights.len()], mine })
            .collect();
        let owners = pieces.iter().map(|&bytes| {
            let owners: Vec<usize> = (0..deals.len()).filter(|&part| deals[part].next(bytes)).collect();
            assert_eq!(owners.len(), 1);
            owners[0]
        });
        owners.collect()
    }

    #[test]
    fn pieces_are_dealt_to_each_part_first_and_then_by_bytes() {
        assert_eq!(dealt(&[1, 1, 1, 1], &[900, 1, 1, 1]), [0, 1, 2, 3]);
        let pieces: Vec<u64> = (0..1000).map(|i| 1 + i * 7919 % 997).collect();
        let owners = dealt(&[10, 30, 60], &pieces);
        let bytes = |part| pieces.iter().zip(&owners).filter(|(_, owner)| **owner == part).map(|(b, _)| b).sum::<u64>();
        let total: u64 = pieces.iter().sum();
        for (part, share) in [(0, 10), (1, 30), (2, 60)] {
            assert!(bytes(part).abs_diff(total * share / 100) < 1000, "{part}");
        }
    }

    #[test]
    fn every_byte_is_in_the_range_of_one_part() {
        for (total, count) in [(1, 1), (7, 3), (10, 10), (3, 7), (1000, 7)] {
            let ranges = Ranges { total, count };
            for byte in 0..total {
                let part = ranges.part_at(byte);
                assert!(ranges.start(part) <= byte && byte < ranges.start(part + 1), "{byte} of {total} in {count}");
            }
            assert_eq!(ranges.part_at(total), count - 1);
        }
    }

    #[test]
    fn an_index_counts_from_zero_and_is_below_the_number_of_parts() {
        assert_eq!("3/16".parse::<PartIndex>().unwrap(), PartIndex { index: 3, count: 16 });
        for (text, says) in [
            ("4/4", "the last one is 3/4"),
            ("0/0", "at least 1"),
            ("3", "for example 0/16"),
            ("-1/4", "for example 0/16"),
            ("a/b", "for example 0/16"),
            ("/", "for example 0/16"),
            ("0/200000", "at most 100000"),
        ] {
            let message = text.parse::<PartIndex>().unwrap_err().to_string();
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
