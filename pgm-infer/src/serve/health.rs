//! What `/health` says.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::{Replica, ReplicaState};

/// The status that `/health` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Ok,
    Loading,
    Failing,
    Stopping,
}

/// A replica that does not work, of a model that has several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BrokenReplica {
    model: String,
    /// Its number, as in the labels of `/metrics`.
    replica: usize,
    device: String,
    state: BrokenState,
}

/// `failing` after a step that failed on the device, until another succeeds; `ended` when only a restart helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BrokenState {
    Failing,
    Ended,
}

impl BrokenReplica {
    /// Those of a model's replicas; a model with one has none to name.
    pub fn among<'a>(model: &'a str, replicas: &'a [Replica]) -> impl Iterator<Item = Self> + 'a {
        let several = if replicas.len() > 1 { replicas } else { &[] };
        several.iter().enumerate().filter_map(move |(replica, found)| {
            let state = match found.state {
                ReplicaState::Working => return None,
                ReplicaState::Failing => BrokenState::Failing,
                ReplicaState::Ended => BrokenState::Ended,
            };
            Some(Self { model: model.to_string(), replica, device: found.device.clone(), state })
        })
    }
}
