//! One step of several rows, in one network evaluation.

use crate::InferError;
use crate::sample::denoiser::Denoiser;
use crate::sample::evaluation::{EvaluatedRow, evaluate};
use crate::sample::logits::{PositionQuery, PositionReading, Wait, finish};
use crate::sample::row::SampleRow;
use crate::sample::row_step::RowStep;
use crate::sample::sampled::RowChange;

/// The result of a step.
#[derive(Debug)]
pub struct StepResult {
    /// The changes of each row, or its error.
    pub changes: Vec<Result<RowChange, InferError>>,
    /// Whether it took a network evaluation.
    pub evaluated: bool,
}

/// One step of each row, in one network evaluation (in none, if no row decodes anything in this step).
///
/// Rows that are done stay as they are. Rows may differ in length, settings and progress. A mistake or a panic of a custom
/// [`Order`](crate::Order) is an error of its row alone, which is then done.
///
/// # Errors
/// [`InferError::Device`] when the device fails, [`InferError::Request`] for a row that the denoiser cannot sample.
pub fn advance(denoiser: &dyn Denoiser, rows: &mut [&mut SampleRow]) -> Result<StepResult, InferError> {
    finish(step(denoiser, rows, Wait::Blocking))
}

/// As [`advance`], awaiting the device where that blocks: for a browser, whose only thread must not block.
///
/// # Errors
/// As [`advance`].
pub async fn advance_async(denoiser: &dyn Denoiser, rows: &mut [&mut SampleRow]) -> Result<StepResult, InferError> {
    step(denoiser, rows, Wait::Async).await
}

async fn step(denoiser: &dyn Denoiser, rows: &mut [&mut SampleRow], wait: Wait) -> Result<StepResult, InferError> {
    let mut changes: Vec<Result<RowChange, InferError>> = rows.iter().map(|_| Ok(RowChange::default())).collect();
    let mut active: Vec<(usize, RowStep)> = Vec::new();
    for (index, row) in rows.iter_mut().enumerate().filter(|(_, row)| !row.is_done()) {
        match row.begin() {
            Ok(begun) if begun.positions.is_empty() => changes[index] = row.end(begun, Vec::new()),
            Ok(begun) => active.push((index, begun)),
            Err(error) => changes[index] = Err(error),
        }
    }
    if active.is_empty() {
        return Ok(StepResult { changes, evaluated: false });
    }
    let evaluated: Vec<EvaluatedRow<'_>> = active
        .iter()
        .map(|(index, begun)| {
            let row = &rows[*index];
            EvaluatedRow { clean: row.clean(), positions: &begun.positions, guide: row.guide(begun) }
        })
        .collect();
    let logits = evaluate(denoiser, &evaluated)?;
    let (mut queries, mut counts): (Vec<PositionQuery<'_>>, Vec<usize>) = (Vec::new(), Vec::new());
    for (place, (index, begun)) in active.iter().enumerate() {
        let of_row = rows[*index].queries(begun, place);
        counts.push(of_row.len());
        queries.extend(of_row);
    }
    let mut readings = vec![PositionReading::default(); queries.len()];
    for draws_any in [false, true] {
        let is_member = |query: &PositionQuery<'_>| rows[active[query.draw.row].0].draws_any_token() == draws_any;
        let members = queries.iter().enumerate().filter(|(_, query)| is_member(query));
        let (members, some): (Vec<usize>, Vec<PositionQuery<'_>>) = members.map(|(i, query)| (i, *query)).unzip();
        if some.is_empty() {
            continue;
        }
        let excluded = if draws_any { &[] } else { denoiser.excluded_classes() };
        let found = logits.read(&some, excluded, wait).await?;
        members.into_iter().zip(found).for_each(|(member, reading)| readings[member] = reading);
    }
    let mut readings = readings.into_iter();
    drop(queries);
    for ((index, begun), n_queries) in active.into_iter().zip(counts) {
        let of_row = readings.by_ref().take(n_queries).collect();
        changes[index] = rows[index].end(begun, of_row);
    }
    Ok(StepResult { changes, evaluated: true })
}
