//! Commands to a running daemon: look, hold, resume, promote, roll back, retry, set the weight.

use http::Method;
use serde_json::{Value, json};

use super::client::AdminClient;
use super::fields::encoded;
use super::paint::Paint;
use super::{Failure, RolloutArgs, SetWeightArgs, StatusArgs, harmless, table, watch};
use crate::clock::UnixMillis;
use crate::stdout;

/// `cutover status`
pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let client = AdminClient::new(&args.admin)?;
    match (args.watch, args.admin.json) {
        (true, true) => return watch::stream(&client),
        (true, false) => return watch::watch(client),
        (false, _) => {}
    }
    let status = client.ask(&Method::GET, "/api/v1/status", None)?;
    if args.admin.json {
        print_json(&status);
    } else {
        let status = harmless::answer(status);
        stdout::raw(&table::status(&status, Paint::stdout(), UnixMillis::now()));
    }
    Ok(())
}

/// `cutover hold`, `resume`, `promote`, `rollback` and `retry`
pub(super) fn act(action: &str, args: &RolloutArgs) -> Result<(), Failure> {
    send(
        &Method::POST,
        action,
        args,
        &json!({ "reason": args.reason }),
    )
}

/// `cutover set-weight`
pub(super) fn set_weight(args: &SetWeightArgs) -> Result<(), Failure> {
    let body = json!({ "reason": args.rollout.reason, "weight": args.weight.to_string() });
    send(&Method::PUT, "weight", &args.rollout, &body)
}

fn send(method: &Method, action: &str, args: &RolloutArgs, body: &Value) -> Result<(), Failure> {
    let client = AdminClient::new(&args.admin)?;
    let rollout = match &args.rollout {
        Some(name) => name.clone(),
        None => only_rollout(&client)?,
    };
    let path = format!("/api/v1/rollouts/{}/{action}", encoded(&rollout));
    let done = client.ask(method, &path, Some(body))?;
    if args.admin.json {
        print_json(&done);
    } else {
        let message = done.get("message").and_then(Value::as_str);
        stdout::line(&harmless::line(message.unwrap_or("done")));
    }
    Ok(())
}

fn only_rollout(client: &AdminClient) -> Result<String, Failure> {
    let status = client.ask(&Method::GET, "/api/v1/status", None)?;
    let rollouts = status
        .get("rollouts")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let names: Vec<_> = rollouts
        .iter()
        .filter_map(|rollout| rollout.get("name")?.as_str())
        .collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(Failure::Refused(format!(
            "name one with --rollout: {}",
            names.join(", ")
        ))),
    }
}

/// An answer as it is, readable.
pub(super) fn print_json(value: &Value) {
    stdout::line(&harmless::json(&format!("{value:#}")));
}
