//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::read::read;
use super::responses::{GenerateErrors, ModelErrors};
use crate::TextModel;
use crate::serve::body::{DetokenizeBody, RequestBody, TokenizeBody};
use crate::serve::error::{ApiError, ErrorBody};
use crate::serve::resolve::max_length;
use crate::serve::run::{RunningRequest, in_background};
use crate::serve::state::Server;
use crate::serve::stream::answer;

/// The tokens of a text.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Ids, or with with_pieces objects.
    tokens: Vec<ListedToken>,
    count: usize,
    /// The most tokens of a text, BOS included.
    max_model_len: usize,
    /// The names of the tokens, if they were asked for.
    #[schema(required = true)]
    token_strs: Option<Vec<String>>,
}

/// An id, or an id with its text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ListedToken {
    Id(u32),
    Piece(TokenPiece),
}

/// A token with its text.
#[derive(Serialize, ToSchema)]
pub struct TokenPiece {
    id: u32,
    piece: Piece,
}

/// A text, or bytes that are none.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

/// The text of token ids, as llama.cpp and as vLLM name it.
#[derive(Serialize, ToSchema)]
pub struct Detokenized {
    content: String,
    prompt: String,
}

/// The model's tokenizer, as vLLM describes it.
#[derive(Serialize, ToSchema)]
pub struct TokenizerInfo {
    tokenizer_class: &'static str,
    /// The name of the BOS token.
    bos_token: String,
    /// The name of the EOS token.
    eos_token: String,
    /// The most tokens of a text, BOS included.
    model_max_length: usize,
    /// The chat template, if the model has one.
    #[schema(required = true)]
    chat_template: Option<String>,
}

/// The tokens of a text
#[utoipa::path(
    post,
    path = "/tokenize",
    operation_id = "tokenize",
    request_body = TokenizeBody,
    responses((status = 200, description = "The tokens.", body = Tokens), GenerateErrors),
)]
pub async fn tokenize(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: TokenizeBody = read(&server, request).await?;
    let model = Arc::clone(server.model(body.model.as_deref())?);
    // A place of the queue, so that no more texts are tokenised at a time than the server may hold.
    let running = RunningRequest::new(&server, &model.name, model.admit(1, server.limits())?);
    let limits = *server.limits();
    answer(running, move || {
        body.check()?;
        let model = model.engine.model();
        let text = body.text();
        let mut tokens = if body.parses_special() { model.encode_with_special(text) } else { model.encode(text) }?;
        if body.adds_special() {
            tokens.insert(0, model.config().backbone().bos_index as u32);
        }
        let with_pieces = body.with_pieces.unwrap_or(false);
        let listed = |id| match with_pieces {
            true => ListedToken::Piece(TokenPiece { id, piece: piece(id, model) }),
            false => ListedToken::Id(id),
        };
        let names = || tokens.iter().map(|&token| model.token_name(token)).collect();
        Ok(Tokens {
            count: tokens.len(),
            max_model_len: max_length(model, &limits),
            token_strs: body.return_token_strs.unwrap_or(false).then(names),
            tokens: tokens.iter().map(|&id| listed(id)).collect(),
        })
    })
    .await
}

fn piece(token: u32, model: &TextModel) -> Piece {
    match model.bytes_of_token(token) {
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Piece::Text(text.to_string()),
            Err(_) => Piece::Bytes(bytes.to_vec()),
        },
        None => Piece::Text(model.token_name(token)),
    }
}

/// The text of token ids, special tokens by their names
#[utoipa::path(
    post,
    path = "/detokenize",
    operation_id = "detokenize",
    request_body = DetokenizeBody,
    responses((status = 200, description = "The text.", body = Detokenized), GenerateErrors),
)]
pub async fn detokenize(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: DetokenizeBody = read(&server, request).await?;
    let model = Arc::clone(server.model(body.model.as_deref())?);
    let running = RunningRequest::new(&server, &model.name, model.admit(1, server.limits())?);
    answer(running, move || {
        body.check()?;
        let model = model.engine.model();
        let n_tokens = model.config().backbone().vocab_size;
        if let Some(token) = body.tokens().iter().find(|&&token| token as usize >= n_tokens) {
            return Err(ApiError::field(
                "tokens",
                format!("the token {token} is beyond the model's {n_tokens} tokens"),
            ));
        }
        let content = model.decode_with_special(body.tokens())?;
        Ok(Detokenized { prompt: content.clone(), content })
    })
    .await
}

/// The tokenizer of the default model
#[utoipa::path(
    get,
    path = "/tokenizer_info",
    operation_id = "tokenizer_info",
    responses(
        (status = 200, description = "The tokenizer.", body = TokenizerInfo),
        (status = 400, description = "No model of the server writes text.", body = ErrorBody),
        ModelErrors,
    ),
)]
pub async fn tokenizer_info(State(server): State<Arc<Server>>) -> Result<Json<TokenizerInfo>, ApiError> {
    let model = Arc::clone(server.model(None)?);
    let limits = *server.limits();
    let info = in_background(move || {
        let model = model.engine.model();
        let backbone = model.config().backbone();
        Ok(TokenizerInfo {
            tokenizer_class: "PreTrainedTokenizerFast",
            bos_token: model.token_name(backbone.bos_index as u32),
            eos_token: model.token_name(backbone.eos_index as u32),
            model_max_length: max_length(model, &limits),
            chat_template: model.special_tokens().chat.source(None).ok().map(str::to_string),
        })
    });
    Ok(Json(info.await?))
}
