//! An HTTP server around engines: OpenAI's completions and images, infilling, metrics, and a page.
//!
//! | file | what |
//! |---|---|
//! | `state` | the models, the limits, the keys and the phase of a server |
//! | `health` | what `/health` says of the server and of replicas |
//! | `queue` | the places that samples hold while they wait and run |
//! | `body/` | request bodies, read and checked without a model |
//! | `resolve` | settings and limits: from a body to tasks |
//! | `run` | running tasks: their events |
//! | `pictures` | drawing pictures: rows from the engine, pixels beside it |
//! | `stream`, `text_stream` | events to one client; those of texts |
//! | `scoring` | likelihoods of given texts, beside the engine |
//! | `progress`, `cells` | what a sample reads as while it is decoded |
//! | `kept`, `logprobs` | the tokens that a text is made of, and their log-probabilities |
//! | `chat` | messages to a text, by the model's chat template |
//! | `api/` | the routes, one file for each protocol, and `/openapi.json` |
//! | `router` | which address goes where, and the layers around all of them |
//! | `connections` | connections of a listener: their number, their timeouts, their end |
//!
//! A request is admitted before any work is done for it: it takes places of its model's queue, and only then is its body
//! checked and tokenised. The caller opens the socket.

mod api;
mod backlog;
mod body;
mod chat;
mod connections;
mod error;
mod health;
mod kept;
mod logprobs;
mod metrics;
mod page;
mod pictures;
mod progress;
mod queue;
mod resolve;
mod router;
mod run;
mod scoring;
mod state;
mod stream;
mod text_stream;

pub use connections::{ConnectionLimits, serve_connections};
pub use error::ApiError;
pub use metrics::Metrics;
pub use router::{router, router_for};
pub use state::{Limits, Server, ServerPhase};
