//! Sampling with what a row has encoded before: each clean token is encoded once.
// C clean tokens of a row, S new tokens of all rows, K positions to decode of all rows, H hidden

use std::cell::RefCell;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::embedding::{embed, registers};
use super::encoded_row::{EncodedRow, Extension, NewTokens};
use super::grown::Grown;
use super::partition::PartitionTransformer;
use crate::attention_plan::AttentionPlan;
use crate::condition::Condition;
use crate::layers::RowKeys;
use crate::sequence::Class;

impl PartitionTransformer {
    /// Encodes new tokens of some rows against what each has encoded before, and keeps them with it.
    ///
    /// # Panics
    /// When the sets of a row are not in order, or a row has more or fewer new tokens than positions and sets.
    pub fn extend(&self, rows: &mut [&mut EncodedRow], new: &[NewTokens<'_>], device: &Device) {
        assert_eq!(rows.len(), new.len(), "new tokens for each row");
        let begin = |(row, new): (&mut &mut EncodedRow, &NewTokens<'_>)| {
            row.begin(new, self.n_registers(), &self.rotary, device)
        };
        let begun = rows.iter_mut().zip(new).map(begin);
        let begun: Vec<Extension> = begun.collect();
        let n_new: Vec<usize> = begun.iter().map(|extension| extension.n_new).collect();
        if n_new.iter().all(|&n| n == 0) {
            return;
        }
        for row in rows.iter_mut() {
            row.encoder.resize_with(self.encoder.len(), Grown::default);
            row.decoder.resize_with(self.decoder.len(), Grown::default);
        }
        let x = self.new_vectors(new, &begun, device); // [1, S, H]
        let condition = self.condition_of(rows.iter().map(|row| row.class), &n_new, device);
        let rows = RefCell::new(rows);
        let output = self.encoder.iter().enumerate().fold(x, |x, (block, layer)| {
            layer.forward_rows(x, condition.as_ref(), |kv| {
                append(&mut rows.borrow_mut(), &n_new, kv, |row| &mut row.encoder[block]);
                row_keys(&rows.borrow(), &begun, block).into_iter()
            })
        }); // [1, S, H]
        let rows = rows.into_inner();
        append(rows, &n_new, self.swap.keys_values(&output), |row| &mut row.swap);
        for (block, layer) in self.decoder.iter().enumerate() {
            append(rows, &n_new, layer.keys_values(&output), |row| &mut row.decoder[block]);
        }
        if self.swap.reads_encoder_output() {
            append(rows, &n_new, output, |row| &mut row.output);
        }
    }

    /// Hidden states at the positions to decode of some rows, row after row, before the head.
    ///
    /// # Shapes
    /// `-> [1, K, H]`
    ///
    /// # Panics
    /// When no row has a position.
    pub fn decode_rows(&self, rows: &[&EncodedRow], positions: &[&[usize]], device: &Device) -> Tensor<3> {
        assert_eq!(rows.len(), positions.len(), "positions of each row");
        let n_queries: Vec<usize> = positions.iter().map(|row| row.len()).collect();
        let plans = rows.iter().zip(positions).filter(|(_, positions)| !positions.is_empty());
        let plans: Vec<(&EncodedRow, AttentionPlan)> = plans
            .map(|(row, positions)| (*row, row.plan(positions, self.n_registers(), &self.rotary, device)))
            .collect();
        let condition = self.condition_of(rows.iter().map(|row| row.class), &n_queries, device);
        let keys = |of_layer: &dyn Fn(&EncodedRow) -> Option<Tensor<3>>| -> Vec<RowKeys<'_>> {
            let of_rows = plans.iter().map(|(row, plan)| RowKeys {
                n_queries: plan.query_positions.indices().dims()[1],
                kv: of_layer(row),
                angles: [&plan.queries, &plan.keys],
                visibility: None,
            });
            of_rows.collect()
        };
        let swapping: Vec<_> = plans.iter().map(|(row, plan)| (row.output.get(), plan)).collect();
        let swapped = self.swap.forward_rows(&swapping, keys(&|row| row.swap.get()), &self.sinusoids);
        let hidden = self.decoder.iter().enumerate().fold(swapped, |x, (block, layer)| {
            // A row without tokens has no layers yet.
            let keys = keys(&|row| row.decoder.get(block).and_then(Grown::get));
            layer.forward_rows(x, condition.as_ref(), keys.into_iter())
        });
        self.before_logits(hidden, condition.as_ref())
    }

    // The vectors of new registers and tokens, [1, S, H].
    fn new_vectors(&self, new: &[NewTokens<'_>], begun: &[Extension], device: &Device) -> Tensor<3> {
        let tokens: Vec<i32> = new.iter().flat_map(|new| new.tokens).map(|&token| token as i32).collect();
        let n_tokens = tokens.len();
        let vectors = (n_tokens > 0).then(|| {
            embed(&self.embedding, Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, n_tokens]), device))
        });
        if begun.iter().all(|extension| extension.n_front == 0) {
            return vectors.expect("at least one new token");
        }
        let (mut parts, mut next) = (Vec::new(), 0);
        for (new, extension) in new.iter().zip(begun) {
            if let Some(all) = self.registers.as_ref().filter(|_| extension.n_front > 0) {
                parts.push(registers(all, self.n_registers().of_clean(), 1));
            }
            if let Some(vectors) = vectors.as_ref().filter(|_| !new.tokens.is_empty()) {
                parts.push(vectors.clone().narrow(1, next, new.tokens.len()));
            }
            next += new.tokens.len();
        }
        Tensor::cat(parts, 1)
    }

    // The condition of packed vectors, of which each row has so many.
    fn condition_of(
        &self,
        classes: impl ExactSizeIterator<Item = Class>,
        lengths: &[usize],
        device: &Device,
    ) -> Option<Condition> {
        let n_rows = classes.len();
        let classes: Vec<Class> = classes.collect();
        let condition = self.condition(classes.iter().any(Option::is_some).then_some(&classes[..]), n_rows)?;
        let labels = lengths.iter().enumerate().flat_map(|(row, &n)| std::iter::repeat_n(row as i32, n));
        let labels: Vec<i32> = labels.collect();
        let n_labels = labels.len();
        Some(condition.packed(&Tensor::from_data(TensorData::new(labels, [1, n_labels]), device)))
    }
}

// Gives each row its part of packed vectors, [1, S, W].
fn append(
    rows: &mut [&mut EncodedRow],
    n_new: &[usize],
    packed: Tensor<3>,
    of: impl Fn(&mut EncodedRow) -> &mut Grown,
) {
    let mut start = 0;
    for (row, &n) in rows.iter_mut().zip(n_new).filter(|(_, n)| **n > 0) {
        of(row).append(packed.clone().narrow(1, start, n));
        start += n;
    }
}

// What the new vectors of each row see in an encoder block.
fn row_keys<'a>(rows: &[&mut EncodedRow], begun: &'a [Extension], block: usize) -> Vec<RowKeys<'a>> {
    let of_row = |(row, extension): (&&mut EncodedRow, &'a Extension)| {
        let sees = extension.sees.as_ref()?;
        Some(RowKeys {
            n_queries: extension.n_new,
            kv: row.encoder[block].get(),
            angles: [&sees.queries, &sees.keys],
            visibility: sees.visibility.as_ref(),
        })
    };
    rows.iter().zip(begun).filter_map(of_row).collect()
}
