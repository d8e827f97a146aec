//! The part of the status that speaks of clients.

use serde::Serialize;

use crate::proxy::clients::Clients;

/// The clients that the configuration names, and those who were none of them.
#[derive(Debug, Clone, Serialize)]
pub struct ClientsStatus {
    /// Requests since start that were answered with 401, because they had no client's key.
    pub unauthorized: u64,
    /// Each client, in the order of the file; empty: nobody is asked for a key.
    pub known: Vec<ClientStatus>,
}

/// One client, since start or since it was added.
#[derive(Debug, Clone, Serialize)]
pub struct ClientStatus {
    /// Its name.
    pub name: String,
    /// How much it may ask, like `100/s`; `null`: any amount.
    pub rate: Option<String>,
    /// Requests that were let in.
    pub requests: u64,
    /// Requests over its rate, answered with 429.
    pub limited: u64,
}

impl ClientsStatus {
    pub(super) fn of(clients: &Clients) -> Self {
        let known = clients.counts().map(|(client, counts)| ClientStatus {
            name: client.name.clone(),
            rate: client.rate.map(|rate| rate.to_string()),
            requests: counts.requests,
            limited: counts.limited,
        });
        Self {
            unauthorized: clients.unauthorized(),
            known: known.collect(),
        }
    }
}
