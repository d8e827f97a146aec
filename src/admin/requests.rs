//! `GET /api/v1/requests`: single attempts, newest first. It reads only.

use http::StatusCode;
use serde::Serialize;

use super::query::Query;
use super::{Admin, Answer, error, json};
use crate::arm::Arm;
use crate::config::RequestRows;
use crate::outcome::Outcome;
use crate::store::{RequestFilter, StoredRequest};

const DEFAULT: u32 = 50;
const MOST: u32 = 1_000;
const KNOWN: &[&str] = &["rollout", "arm", "outcome", "failed", "limit", "before"];

#[derive(Debug, Serialize)]
struct Requests {
    requests: Vec<StoredRequest>,
    /// What the rows do not say by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// `GET /api/v1/requests?rollout=&arm=&outcome=&failed=&limit=&before=`
pub(super) async fn requests(admin: &Admin, query: Option<&str>) -> Answer {
    let filter = match Query::parse(query, KNOWN).and_then(|query| filter_of(&query)) {
        Ok(filter) => filter,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let kept = admin.planes.borrow().config.store.requests;
    match admin.store.requests(filter).await {
        Ok(page) => json(
            StatusCode::OK,
            &Requests {
                note: note(kept, page.searched_to),
                requests: page.requests,
            },
        ),
        Err(failed) => error(StatusCode::SERVICE_UNAVAILABLE, &failed.to_string()),
    }
}

fn filter_of(query: &Query) -> Result<RequestFilter, String> {
    let arm = query
        .text("arm")
        .map(|word| Arm::from_word(word).ok_or_else(|| "arm is legacy or canary".to_owned()));
    let outcome = query.text("outcome").map(|word| {
        Outcome::from_word(word).ok_or_else(|| {
            let words = Outcome::ALL.map(Outcome::as_str).join(", ");
            format!("outcome is one of {words}")
        })
    });
    let limit = query.limit(DEFAULT, MOST)?;
    Ok(RequestFilter {
        rollout: query.text("rollout").map(str::to_owned),
        arm: arm.transpose()?,
        outcome: outcome.transpose()?,
        failed: query.flag("failed")?,
        before: query.value("before", "is a request's id")?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    })
}

fn note(kept: RequestRows, searched_to: Option<i64>) -> Option<String> {
    let kept = match kept {
        RequestRows::All => None,
        RequestRows::Failures => {
            Some("store.requests = \"failures\": requests that went well are not kept".to_owned())
        }
        RequestRows::None => {
            Some("store.requests = \"none\": single requests are not kept".to_owned())
        }
    };
    let searched = searched_to.map(|id| {
        format!("the search ended early: go on with before={id}, or ask for something less rare")
    });
    match (kept, searched) {
        (Some(kept), Some(searched)) => Some(format!("{kept}; {searched}")),
        (kept, searched) => kept.or(searched),
    }
}
