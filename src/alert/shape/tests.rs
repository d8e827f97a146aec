use super::*;
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::config::values::Secret;

fn webhook(format: WebhookFormat) -> Webhook {
    Webhook {
        url: Secret::new("https://hooks.example.com/services/s3cret"),
        format,
        key: Some(Secret::new("0123456789abcdef0123456789abcdef")),
        events: Vec::new(),
    }
}

fn weight(percent: &str) -> Weight {
    Weight::parse(percent).unwrap()
}

fn trip() -> Alert {
    Alert {
        id: "1795300000000-3".to_owned(),
        at: UnixMillis(1_795_300_000_000),
        weight: Some((weight("50%"), weight("0%"))),
        decision: Some(4711),
        ..Alert::new(AlertKind::Trip, "errors 4/4 in 0.8s: <b> & co".to_owned())
            .of_rollout("default")
    }
}

fn only(alert: &Alert, webhook: &Webhook) -> Value {
    let messages = messages(alert, webhook, "gate-1");
    let [message] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    message.clone()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}").replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn the_plain_shape_says_all_that_is_known() {
    insta::assert_snapshot!(pretty(&only(&trip(), &webhook(WebhookFormat::Json))), @r#"
    {
      "at": "2026-11-21T22:26:40.000Z",
      "cutover": "VERSION",
      "decision": 4711,
      "dedup_key": "cutover/default/trip",
      "id": "1795300000000-3",
      "kind": "trip",
      "resolves": [],
      "rollout": "default",
      "runbook": "docs/runbook.md#trip",
      "severity": "critical",
      "source": "gate-1",
      "subject": "default",
      "text": "errors 4/4 in 0.8s: <b> & co",
      "title": "default: tripped, 50% -> 0%",
      "version": 1,
      "weight_from": 0.5,
      "weight_to": 0.0
    }
    "#);
}

#[test]
fn slack_gets_a_title_a_colour_and_nothing_that_could_be_a_mention() {
    let alert = trip().ends(vec![AlertKind::Held, AlertKind::Retreat]);
    insta::assert_snapshot!(pretty(&only(&alert, &webhook(WebhookFormat::Slack))), @r##"
    {
      "attachments": [
        {
          "blocks": [
            {
              "text": {
                "text": "errors 4/4 in 0.8s: &lt;b&gt; &amp; co",
                "type": "mrkdwn"
              },
              "type": "section"
            },
            {
              "fields": [
                {
                  "text": "*Alert*\ntrip",
                  "type": "mrkdwn"
                },
                {
                  "text": "*Rollout*\ndefault",
                  "type": "mrkdwn"
                },
                {
                  "text": "*Decision*\n4711",
                  "type": "mrkdwn"
                },
                {
                  "text": "*Ends*\nheld, retreat",
                  "type": "mrkdwn"
                }
              ],
              "type": "section"
            },
            {
              "elements": [
                {
                  "text": "2026-11-21T22:26:40.000Z · gate-1 · docs/runbook.md#trip",
                  "type": "mrkdwn"
                }
              ],
              "type": "context"
            }
          ],
          "color": "#c62828"
        }
      ],
      "text": "default: tripped, 50% -&gt; 0%"
    }
    "##);
}

#[test]
fn pagerduty_gets_a_trigger_that_its_recovery_resolves() {
    let webhook = webhook(WebhookFormat::PagerDuty);
    let mut event = only(&trip(), &webhook);
    let details = event["payload"]["custom_details"].take();
    assert_eq!(details["runbook"], "docs/runbook.md#trip");
    insta::assert_snapshot!(pretty(&event), @r#"
    {
      "client": "cutover",
      "dedup_key": "cutover/default/trip",
      "event_action": "trigger",
      "payload": {
        "class": "trip",
        "component": "default",
        "custom_details": null,
        "severity": "critical",
        "source": "gate-1",
        "summary": "default: tripped, 50% -> 0% · errors 4/4 in 0.8s: <b> & co",
        "timestamp": "2026-11-21T22:26:40.000Z"
      },
      "routing_key": "0123456789abcdef0123456789abcdef"
    }
    "#);
    let resume = Alert::new(AlertKind::Resume, String::new())
        .of_rollout("default")
        .ends(vec![AlertKind::Trip]);
    let end = only(&resume, &webhook);
    assert_eq!(end["event_action"], "resolve");
    assert_eq!(end["dedup_key"], event["dedup_key"]);
}

#[test]
fn texts_are_cut_to_what_receivers_take() {
    let long = Alert {
        text: "<>&".repeat(5_000),
        ..trip()
    };
    let slack = only(&long, &webhook(WebhookFormat::Slack));
    let text = &slack["attachments"][0]["blocks"][0]["text"]["text"];
    assert!(text.as_str().unwrap().len() <= 3_000);
    let event = only(&long, &webhook(WebhookFormat::PagerDuty));
    let summary = event["payload"]["summary"].as_str().unwrap();
    assert!(summary.chars().count() <= 1_024);
}

#[test]
fn who_is_told_of_what() {
    let of = |kind: AlertKind| Alert::new(kind, String::new()).of_rollout("a");
    let resume = of(AlertKind::Resume).ends(vec![AlertKind::Trip, AlertKind::Approval]);
    let roll_back = of(AlertKind::RollBack).ends(vec![AlertKind::Trip]);
    let quiet = Alert {
        quiet: true,
        ..resume.clone()
    };
    // Format, filter, alert, and what arrives.
    let check = |format, events: &[AlertKind], alert: &Alert, expected: &[&str]| {
        let webhook = Webhook {
            events: events.to_vec(),
            ..webhook(format)
        };
        let messages = messages(alert, &webhook, "gate-1");
        let found: Vec<String> = messages
            .iter()
            .map(|message| match message["event_action"].as_str() {
                Some(action) => format!("{action} {}", message["dedup_key"].as_str().unwrap()),
                None => "one".to_owned(),
            })
            .collect();
        assert_eq!(found, expected, "{format:?} {events:?} {alert:?}");
    };
    use WebhookFormat::{Json, PagerDuty, Slack};
    for format in [Slack, Json] {
        check(format, &[], &resume, &["one"]);
        check(format, &[], &of(AlertKind::Promote), &["one"]);
        check(format, &[], &quiet, &[]);
        check(format, &[AlertKind::Trip], &of(AlertKind::Trip), &["one"]);
        check(format, &[AlertKind::Trip], &resume, &["one"]);
        check(format, &[AlertKind::Harm], &resume, &[]);
        check(format, &[AlertKind::Harm], &of(AlertKind::Test), &["one"]);
    }
    check(PagerDuty, &[], &of(AlertKind::Promote), &[]);
    check(PagerDuty, &[], &resume, &["resolve cutover/a/trip"]);
    check(PagerDuty, &[], &quiet, &["resolve cutover/a/trip"]);
    let both = ["trigger cutover/a/roll-back", "resolve cutover/a/trip"];
    check(PagerDuty, &[], &roll_back, &both);
    check(PagerDuty, &[AlertKind::RollBack], &roll_back, &both[..1]);
    let promote = ["trigger cutover/a/promote"];
    check(
        PagerDuty,
        &[AlertKind::Promote],
        &of(AlertKind::Promote),
        &promote,
    );
}
