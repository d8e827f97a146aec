//! `cutover alert-test`: does each receiver take what cutover would send it?
//!
//! Sends from this process, not through the daemon; each message once. Shows no address and no key.

use serde_json::{Value, json};

use super::config_commands::{control_runtime, load_failure};
use super::{AlertTestArgs, Failure};
use crate::alert::kind::AlertKind;
use crate::alert::{self, Alert, shape};
use crate::config::parse;
use crate::config::{AlertsConfig, Webhook, WebhookFormat};
use crate::stdout;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    cutover alert-test --config cutover.toml\n  \
    cutover alert-test --print        see the messages, send nothing\n\n\
    PagerDuty gets an incident and its end.";

/// `cutover alert-test`
pub(super) fn alert_test(args: &AlertTestArgs) -> Result<(), Failure> {
    let path = &args.config.config;
    let config = if args.print {
        // To look at the messages takes no secret.
        parse::load_without_secrets(path)
    } else {
        parse::load(path)
    };
    let AlertsConfig { webhooks, .. } = config.map_err(|error| load_failure(&error))?.config.alerts;
    if webhooks.is_empty() {
        let message = "no receiver is configured; add webhooks to [alerts]";
        return Err(Failure::Refused(message.to_owned()));
    }
    let host = alert::host();
    let tests: Vec<(Webhook, Vec<Value>)> = webhooks
        .into_iter()
        .map(|webhook| {
            let messages = messages(&webhook, &host);
            (webhook, messages)
        })
        .collect();
    if args.print {
        print_messages(&tests, args.json);
        return Ok(());
    }
    let results = control_runtime()?.block_on(send_all(tests));
    let failed = results.iter().filter(|result| result.error.is_some());
    let failed = failed.count();
    print_results(&results, args.json);
    if failed == 0 {
        return Ok(());
    }
    let message = format!("{failed} of {} receivers failed", results.len());
    Err(Failure::Refused(message))
}

/// What one receiver is sent: a test, and for PagerDuty its end.
fn messages(webhook: &Webhook, host: &str) -> Vec<Value> {
    let text = "a test by `cutover alert-test`; nothing has happened".to_owned();
    let test = Alert::new(AlertKind::Test, text);
    let test = Alert {
        id: format!("{}-test", test.at.0),
        ..test
    };
    let mut messages = shape::messages(&test, webhook, host);
    if webhook.format == WebhookFormat::PagerDuty {
        let end = Alert {
            quiet: true,
            ..test.ends(vec![AlertKind::Test])
        };
        messages.extend(shape::messages(&end, webhook, host));
    }
    messages
}

/// How one receiver took it.
struct Tested {
    webhook: String,
    format: &'static str,
    error: Option<String>,
}

/// All receivers at once, each with its messages in order.
async fn send_all(tests: Vec<(Webhook, Vec<Value>)>) -> Vec<Tested> {
    let mut tasks = Vec::new();
    for (webhook, messages) in tests {
        tasks.push(tokio::spawn(async move {
            let mut error = None;
            for message in &messages {
                error = alert::deliver_once(&webhook, message).await.err();
                if error.is_some() {
                    break;
                }
            }
            Tested {
                webhook: alert::shown(&webhook),
                format: webhook.format.as_str(),
                error,
            }
        }));
    }
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap_or_else(|error| Tested {
            webhook: "?".to_owned(),
            format: "?",
            error: Some(error.to_string()),
        }));
    }
    results
}

fn print_results(results: &[Tested], as_json: bool) {
    if as_json {
        let webhooks: Vec<Value> = results
            .iter()
            .map(|result| {
                json!({
                    "webhook": result.webhook,
                    "format": result.format,
                    "ok": result.error.is_none(),
                    "error": result.error,
                })
            })
            .collect();
        stdout::line(&format!("{:#}", json!({ "webhooks": webhooks })));
        return;
    }
    for Tested {
        webhook,
        format,
        error,
    } in results
    {
        match error {
            None => stdout::line(&format!("ok      {webhook} ({format})")),
            Some(error) => {
                stdout::line(&format!("FAILED  {webhook} ({format}): {error}"));
            }
        }
    }
}

/// The messages as they would be sent, but for PagerDuty's key.
fn print_messages(tests: &[(Webhook, Vec<Value>)], as_json: bool) {
    let mut all = Vec::new();
    for (webhook, messages) in tests {
        let (name, format) = (alert::shown(webhook), webhook.format.as_str());
        for message in messages {
            let mut message = message.clone();
            if let Some(key) = message.get_mut("routing_key") {
                *key = "****".into();
            }
            if as_json {
                all.push(json!({ "webhook": name, "format": format, "message": message }));
            } else {
                stdout::line(&format!("POST {name} ({format})\n{message:#}\n"));
            }
        }
    }
    if as_json {
        stdout::line(&format!("{:#}", json!({ "messages": all })));
    }
}
