//! The routes under `/api/v1`: from a request to a question for the driver or the store, and back.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::query::Query;
use super::{Admin, Answer, error, json};
use crate::arm::Weight;
use crate::controller::step::{Action, Command};
use crate::driver::Request as DriverRequest;
use crate::driver::status::Status;

/// The driver answers in well under a millisecond; a commit may take as long as the disk does.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(10);
const DECISIONS_DEFAULT: u32 = 50;
const DECISIONS_MAX: u32 = 1_000;

/// `GET /api/v1/status`
pub(super) async fn status(admin: &Admin) -> Answer {
    let (reply, answer) = oneshot::channel();
    match ask(admin, DriverRequest::Status(reply), answer).await {
        Ok(status) => json(StatusCode::OK, &status),
        Err(answer) => answer,
    }
}

/// The status, if the driver gives it.
pub(super) async fn live_status(admin: &Admin) -> Option<Status> {
    let (reply, answer) = oneshot::channel();
    let asked = ask(admin, DriverRequest::Status(reply), answer);
    asked.await.ok()
}

/// `GET /api/v1/decisions?rollout=&limit=&before=`
pub(super) async fn decisions(admin: &Admin, query: Option<&str>) -> Answer {
    let asked = Query::parse(query, &["rollout", "limit", "before"]).and_then(|query| {
        let limit = query.limit(DECISIONS_DEFAULT, DECISIONS_MAX)?;
        let before = query.value("before", "is a decision's id")?;
        Ok((query.text("rollout").map(str::to_owned), limit, before))
    });
    let (rollout, limit, before) = match asked {
        Ok(asked) => asked,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    match admin
        .store
        .decisions(rollout.as_deref(), limit, before)
        .await
    {
        Ok(decisions) => json(
            StatusCode::OK,
            &serde_json::json!({ "decisions": decisions }),
        ),
        Err(failed) => error(StatusCode::SERVICE_UNAVAILABLE, &failed.to_string()),
    }
}

/// The rollout and the action that a mutation's path names.
pub(super) fn mutation_of(path: &str) -> Option<(&str, &str)> {
    let (rollout, action) = path.strip_prefix("/api/v1/rollouts/")?.split_once('/')?;
    let known = ["hold", "resume", "promote", "rollback", "retry", "weight"].contains(&action);
    (known && !rollout.is_empty()).then_some((rollout, action))
}

#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    reason: String,
    weight: Option<String>,
}

/// `POST /api/v1/rollouts/{name}/{action}` and `PUT /api/v1/rollouts/{name}/weight`
pub(super) async fn operate(
    admin: &Admin,
    method: &Method,
    rollout: String,
    action: &str,
    body: &[u8],
) -> Answer {
    let body = if body.is_empty() {
        Ok(Body::default())
    } else {
        serde_json::from_slice(body)
    };
    let Ok(body) = body else {
        return error(
            StatusCode::BAD_REQUEST,
            "the body is JSON like {\"reason\": \"…\"}",
        );
    };
    let action = match (method, action) {
        (&Method::POST, "hold") => Action::Hold,
        (&Method::POST, "resume") => Action::Resume,
        (&Method::POST, "promote") => Action::Promote,
        (&Method::POST, "rollback") => Action::Rollback,
        (&Method::POST, "retry") => Action::Retry,
        (&Method::PUT, "weight") => match body.weight.as_deref().map(Weight::parse) {
            Some(Ok(weight)) => Action::SetWeight(weight),
            Some(Err(message)) => return error(StatusCode::BAD_REQUEST, &message),
            None => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "the body names a weight, like \"25%\"",
                );
            }
        },
        _ => {
            return error(
                StatusCode::METHOD_NOT_ALLOWED,
                "weight takes PUT, the others POST",
            );
        }
    };
    let reason: String = body
        .reason
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect();
    let (reply, answer) = oneshot::channel();
    let command = Command { action, reason };
    let request = DriverRequest::Operate {
        rollout,
        command,
        reply,
    };
    match ask(admin, request, answer).await {
        Ok(Ok(done)) => json(StatusCode::OK, &done),
        Ok(Err(refused)) => error(refused.status(), &refused.to_string()),
        Err(answer) => answer,
    }
}

pub(super) async fn ask<T>(
    admin: &Admin,
    request: DriverRequest,
    answer: oneshot::Receiver<T>,
) -> Result<T, Answer> {
    asked(&admin.driver, request, answer).await
}

async fn asked<T>(
    driver: &mpsc::Sender<DriverRequest>,
    request: DriverRequest,
    answer: oneshot::Receiver<T>,
) -> Result<T, Answer> {
    driver.try_send(request).map_err(|_| {
        let words = "the driver takes nothing now: nothing was changed";
        error(StatusCode::SERVICE_UNAVAILABLE, words)
    })?;
    match tokio::time::timeout(DRIVER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        // It has the request and may still carry it out: this is no refusal.
        Ok(Err(_)) | Err(_) => Err(error(
            StatusCode::GATEWAY_TIMEOUT,
            "the driver has not answered in time; what was asked may still be done, so look at the status",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_driver_took_and_did_not_answer_is_no_refusal() {
        let (driver, mut taken) = mpsc::channel(1);
        let ask = async || {
            let (reply, answer) = oneshot::channel();
            let answer = asked(&driver, DriverRequest::Status(reply), answer).await;
            answer.unwrap_err().status()
        };
        let (status, request) = tokio::join!(ask(), async { taken.recv().await.is_some() });
        assert!(request);
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
        drop(taken);
        assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
