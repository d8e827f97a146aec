//! Commands to a running daemon: look, hold, resume, promote, roll back, retry, set the weight.

use http::Method;
use serde_json::{Value, json};

use super::client::AdminClient;
use super::{AdminArgs, DecisionsArgs, Failure, RolloutArgs, SetWeightArgs, table};
use crate::stdout;

/// `cutover status`
pub(super) fn status(args: &AdminArgs) -> Result<(), Failure> {
    let status = AdminClient::new(args)?.ask(Method::GET, "/api/v1/status", None)?;
    if args.json {
        print_json(&status);
    } else {
        stdout::raw(&table::status(&status));
    }
    Ok(())
}

/// `cutover decisions`
pub(super) fn decisions(args: &DecisionsArgs) -> Result<(), Failure> {
    let client = AdminClient::new(&args.admin)?;
    let mut path = format!("/api/v1/decisions?limit={}", args.limit);
    if let Some(rollout) = &args.rollout {
        path.push_str(&format!("&rollout={rollout}"));
    }
    let answer = client.ask(Method::GET, &path, None)?;
    if args.admin.json {
        print_json(&answer);
    } else {
        stdout::raw(&table::decisions(&answer));
    }
    Ok(())
}

/// `cutover hold`, `resume`, `promote`, `rollback` and `retry`
pub(super) fn act(action: &str, args: &RolloutArgs) -> Result<(), Failure> {
    send(
        Method::POST,
        action,
        args,
        &json!({ "reason": args.reason }),
    )
}

/// `cutover set-weight`
pub(super) fn set_weight(args: &SetWeightArgs) -> Result<(), Failure> {
    let body = json!({ "reason": args.rollout.reason, "weight": args.weight.to_string() });
    send(Method::PUT, "weight", &args.rollout, &body)
}

fn send(method: Method, action: &str, args: &RolloutArgs, body: &Value) -> Result<(), Failure> {
    let client = AdminClient::new(&args.admin)?;
    let rollout = match &args.rollout {
        Some(name) => name.clone(),
        None => only_rollout(&client)?,
    };
    let path = format!("/api/v1/rollouts/{rollout}/{action}");
    let done = client.ask(method, &path, Some(body))?;
    if args.admin.json {
        print_json(&done);
    } else {
        stdout::line(
            done.get("message")
                .and_then(Value::as_str)
                .unwrap_or("done"),
        );
    }
    Ok(())
}

fn only_rollout(client: &AdminClient) -> Result<String, Failure> {
    let status = client.ask(Method::GET, "/api/v1/status", None)?;
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

fn print_json(value: &Value) {
    stdout::line(&format!("{value:#}"));
}
