//! `POST /score`: how probable texts are, as `pgm-train eval choice` computes it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use pgm_model::Network;
use serde::Serialize;
use utoipa::ToSchema;

use super::read::read;
use super::responses::GenerateErrors;
use crate::TextModel;
use crate::score::{
    MaskedDraw, OrderedRow, SetDraw, causal_nll, draws, one_pass_nll, one_pass_problem, random_order, weighted_nll,
};
use crate::serve::body::{Reduction, RequestBody, ScoreBody};
use crate::serve::error::ApiError;
use crate::serve::resolve;
use crate::serve::run::{RunningRequest, in_background};
use crate::serve::scoring::{ScoreWatch, scoring};
use crate::serve::state::Server;
use crate::serve::stream::answer;

/// Draws that are evaluated together.
const BATCH: usize = 32;

/// An answer.
#[derive(Serialize, ToSchema)]
pub struct Scores {
    object: ScoreObject,
    model: String,
    /// What the scores are.
    estimator: ScoreEstimator,
    /// Draws of each candidate; 0 where the score is exact.
    draws: usize,
    /// Seed of the draws.
    seed: u64,
    reduction: Reduction,
    /// The candidate with the highest score, the first of equal ones.
    best: usize,
    scores: Vec<Score>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ScoreObject {
    Score,
}

/// What a score is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
enum ScoreEstimator {
    /// The log-likelihood of an autoregressive model.
    #[serde(rename = "exact")]
    Exact,
    /// An estimate of the any-order bound, which is at most the log-likelihood: the mean over all orders of the
    /// log-likelihood token by token.
    #[serde(rename = "any-order bound")]
    AnyOrderBound,
    /// The same bound for a partition model that encodes each token once, all tokens in one pass.
    #[serde(rename = "any-order one pass")]
    OnePass,
}

/// A candidate's score.
#[derive(Serialize, ToSchema)]
pub struct Score {
    index: usize,
    candidate: String,
    /// The score, higher is better: in nats, or in nats per token.
    score: f64,
    /// The score's 95 % interval over the draws; null where it is exact, and for one draw.
    #[schema(required = true)]
    interval: Option<[f64; 2]>,
    /// Tokens of context and candidate, BOS and EOS included.
    tokens: usize,
}

/// How probable texts are
///
/// The score of a candidate is the log-likelihood of BOS, the context, the separator, the candidate and EOS: exact for an
/// autoregressive model, and an estimate of a lower bound for others. Only the differences between candidates of one
/// context mean something.
#[utoipa::path(
    post,
    path = "/score",
    operation_id = "score",
    request_body = ScoreBody,
    responses((status = 200, description = "The scores.", body = Scores), GenerateErrors),
)]
pub async fn score(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: ScoreBody = read(&server, request).await?;
    let model = Arc::clone(server.model(body.model.as_deref())?);
    let n_candidates = resolve::n_candidates(body.candidates().len().max(1), server.limits())?;
    let admission = model.admit(n_candidates, server.limits())?;
    let (admission, body, rows) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || {
            body.check()?;
            let model = model.engine.model();
            if let Some(problem) = one_pass_problem(model.config()).filter(|_| body.one_pass()) {
                let message = format!("one_pass must be false for this model: {problem}");
                return Err(ApiError::field("one_pass", message));
            }
            let rows = rows(&body, model, resolve::max_length(model, &limits))?;
            Ok((admission, body, rows))
        }
    })
    .await?;
    let name = model.name.clone();
    let work = move |model: &TextModel, watch: &ScoreWatch| scores(name, &body, &rows, model, watch);
    let (admission, scores) = scoring(&server, &model, admission, work).await?;
    answer(RunningRequest::new(&server, &model.name, admission), || Ok(scores)).await
}

// BOS, the tokens of context and candidate, EOS.
fn rows(body: &ScoreBody, model: &TextModel, most: usize) -> Result<Vec<Vec<u32>>, ApiError> {
    let backbone = model.config().backbone();
    let row = |(index, text): (usize, String)| {
        let tokens = model.encode(&text)?;
        let row = [&[backbone.bos_index as u32], tokens.as_slice(), &[backbone.eos_index as u32]].concat();
        if row.len() > most {
            let n_tokens = row.len();
            let message = format!(
                "candidate {index} has {n_tokens} tokens with its context, BOS and EOS; the server takes at most {most}"
            );
            return Err(ApiError::field("candidates", message));
        }
        Ok(row)
    };
    body.texts().into_iter().enumerate().map(row).collect()
}

fn scores(
    name: String,
    body: &ScoreBody,
    rows: &[Vec<u32>],
    model: &TextModel,
    watch: &ScoreWatch,
) -> Result<Scores, ApiError> {
    let is_exact = matches!(model.network(), Network::Autoregressive(_));
    let mut scores = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        watch.check()?;
        let (nats, spread) = if is_exact {
            (causal_nll(model.handle(), &[row])?[0].iter().sum(), None)
        } else {
            bound(row, body, model, watch)?
        };
        let scale = match body.reduction() {
            Reduction::Sum => 1.0,
            Reduction::Mean => row.len() as f64,
        };
        scores.push(Score {
            index,
            candidate: body.candidates()[index].clone(),
            score: -nats / scale,
            interval: spread.map(|half: f64| [(-nats - half) / scale, (-nats + half) / scale]),
            tokens: row.len(),
        });
    }
    let better = |&a: &usize, &b: &usize| scores[a].score.total_cmp(&scores[b].score).then(b.cmp(&a));
    let best = (0..scores.len()).max_by(better).unwrap_or(0);
    Ok(Scores {
        object: ScoreObject::Score,
        model: name,
        estimator: match (is_exact, body.one_pass()) {
            (true, _) => ScoreEstimator::Exact,
            (false, false) => ScoreEstimator::AnyOrderBound,
            (false, true) => ScoreEstimator::OnePass,
        },
        draws: if is_exact { 0 } else { body.draws() },
        seed: body.seed(),
        reduction: body.reduction(),
        best,
        scores,
    })
}

// The bound of a row in nats, and half of its 95 % interval. The draws of hidden tokens are stratified, so
// there the interval is rather too wide; orders are independent.
fn bound(row: &[u32], body: &ScoreBody, model: &TextModel, watch: &ScoreWatch) -> Result<(f64, Option<f64>), ApiError> {
    let (n_draws, sets, seed) = (body.draws(), model.config().sets(), body.seed());
    let draw = |(hidden, draw)| MaskedDraw {
        tokens: row,
        valid: row.len(),
        hidden,
        sets: SetDraw { sets, seed, index: draw },
    };
    let mut drawn = draws::any_order(seed, 0, row.len(), n_draws).zip(0..).map(draw);
    let order = |draw| OrderedRow { tokens: row, valid: row.len(), order: random_order(seed, draw, row.len()) };
    let mut ordered = (0..n_draws as u64).map(order);
    let (mut values, mut sum) = (Vec::with_capacity(n_draws), 0.0);
    while values.len() < n_draws {
        watch.check()?;
        let batch = match body.one_pass() {
            true => one_pass_nll(model.handle(), &ordered.by_ref().take(BATCH).collect::<Vec<_>>())?,
            false => weighted_nll(model.handle(), &drawn.by_ref().take(BATCH).collect::<Vec<_>>())?,
        };
        sum += batch.iter().sum::<f64>();
        values.extend(batch);
    }
    let mean = sum / n_draws as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let half = (n_draws > 1).then(|| 1.96 * (squares / (n_draws - 1) as f64 / n_draws as f64).sqrt());
    Ok((mean, half))
}
