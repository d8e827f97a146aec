//! Answers that an arm compresses although it was asked not to: the client gets them plain, and they are
//! measured, rescued and edited like others.

use crate::client::{Answer, End, post};
use crate::harness::{CHAT, MESSAGES, RESPONSES, Rig, Row, Setup, ask, served_by};

const BOTH: [bool; 2] = [false, true];

/// What the canary says without any coding.
async fn plain(rig: &Rig, path: &str, model: &str, stream: bool) -> String {
    // Legacy does not take part in `@canary`, and says the same apart from its name.
    let direct = post(rig.legacy.port(), path, &ask(model, stream)).await;
    direct.unwrap().text().replace("legacy", "canary")
}

fn outcomes<'a>(rows: &'a [Row], arm: &str) -> Vec<&'a str> {
    let of_arm = rows.iter().filter(|row| row.arm == arm);
    of_arm.map(|row| row.outcome.as_str()).collect()
}

fn check_head(answer: &Answer) {
    assert_eq!((answer.head.status, served_by(answer)), (200, "canary"));
    assert_eq!(answer.head.header("content-encoding"), None);
    if let Some(length) = answer.head.header("content-length") {
        assert_eq!(length.parse(), Ok(answer.body.len()));
    }
}

#[tokio::test]
async fn a_compressed_answer_reaches_the_client_plain_and_is_measured() {
    let rig = Rig::at(100).await;
    let codings = [
        "gzip",
        "deflate",
        "gzip-one-byte-writes",
        "gzip-until-fin",
        "gzip-crlf",
    ];
    for coding in codings {
        let model = format!("fault-{coding}@canary");
        for path in [CHAT, "/v1/completions", MESSAGES, RESPONSES] {
            for stream in BOTH {
                let answer = rig.post(path, &ask(&model, stream)).await;
                let what = format!("{path} {coding} {stream}");
                check_head(&answer);
                let mut expected = plain(&rig, path, &model, stream).await;
                if coding == "gzip-crlf" && stream {
                    expected = expected.replace('\n', "\r\n");
                }
                assert!(answer.text() == expected, "{what}: {}", answer.text());
                assert_eq!(answer.end, End::Clean, "{what}");
            }
        }
    }
    let rows = rig.finish().await.rows;
    assert_eq!(rows.len(), codings.len() * 8);
    for row in rows {
        assert_eq!(
            (row.outcome.as_str(), row.tokens),
            ("ok", Some((11, 2, 9))),
            "{row:?}"
        );
        assert_eq!(row.ttft_ms.is_some(), row.streamed, "{row:?}");
    }
}

#[tokio::test]
async fn an_event_that_was_flushed_does_not_wait_for_the_next() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let body = ask("fault-gzip-gap-100@canary", true).to_string();
    client
        .request("POST", CHAT, &[], body.as_bytes())
        .await
        .unwrap();
    client.head().await.unwrap();
    let (mut parts, mut done) = (0, false);
    while let Some(part) = client.part().await.unwrap() {
        let events = String::from_utf8(part).unwrap();
        assert!(events.ends_with("\n\n"), "{events}");
        // What came before the first token was held back with it.
        assert!(
            parts == 0 || events.matches("data:").count() == 1,
            "{events}"
        );
        parts += 1;
        done |= events.contains("[DONE]");
    }
    assert!(done && parts > 9, "{parts}");
    drop(client);
    let rows = rig.finish().await.rows;
    let ttft_ms = rows[0].ttft_ms.unwrap();
    assert!(rows[0].latency_ms >= ttft_ms + 800.0, "{rows:?}");
}

#[tokio::test]
async fn compressed_refusals_are_read_and_rescued_or_passed_on_plain() {
    let rig = Rig::at(100).await;
    let faults = [
        ("500", "server-error"),
        ("429-quota", "quota"),
        ("404-model", "parity"),
        ("soft-error", "soft-error"),
    ];
    for (fault, _) in faults {
        for coding in ["gzip", "deflate"] {
            let model = format!("fault-{coding}-{fault}@canary");
            let answer = rig.post(CHAT, &ask(&model, true)).await;
            assert_eq!(
                (answer.head.status, served_by(&answer)),
                (200, "legacy"),
                "{model}"
            );
        }
        // Refusals of an account in a row would end the rollout's traffic.
        rig.post(CHAT, &ask("ok", false)).await;
    }
    let answer = rig.post(CHAT, &ask("fault-gzip-400@canary", false)).await;
    assert_eq!((answer.head.status, served_by(&answer)), (400, "canary"));
    assert_eq!(answer.head.header("content-encoding"), None);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    let rows = rig.finish().await.rows;
    let mut expected: Vec<_> = faults
        .iter()
        .flat_map(|(_, outcome)| [*outcome, *outcome, "ok"])
        .collect();
    expected.push("client-error");
    assert_eq!(outcomes(&rows, "canary"), expected);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_coding_says_is_rescued_before_content() {
    let rig = Rig::at(100).await;
    let faults = [
        "garbled",
        "garbled-500",
        "gzip-end-at-20",
        "deflate-end-at-20",
        "gzip-end-at-1",
    ];
    for fault in faults {
        for stream in BOTH {
            let model = format!("fault-{fault}@canary");
            let answer = rig.post(CHAT, &ask(&model, stream)).await;
            assert_eq!(
                (answer.head.status, served_by(&answer)),
                (200, "legacy"),
                "{model}"
            );
            assert_eq!(answer.end, End::Clean, "{model}");
        }
    }
    let answer = rig
        .post(CHAT, &ask("fault-gzip-reset-at-20@canary", true))
        .await;
    assert_eq!(served_by(&answer), "legacy");
    let rows = rig.finish().await.rows;
    let expected = [vec!["soft-error"; faults.len() * 2], vec!["reset"]].concat();
    assert_eq!(outcomes(&rows, "canary"), expected);
}

/// About how long the compressed stream is when a fault of four digits is asked for.
async fn coded_length(rig: &Rig) -> usize {
    let ask = ask("fault-gzip-end-at-9999@canary", true);
    let answer = post(rig.canary.port(), CHAT, &ask).await.unwrap();
    let message = answer.text();
    let (_, behind) = message.split_once("cuts behind the ").unwrap();
    behind.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_body_that_breaks_off_within_its_coding_never_looks_whole() {
    let rig = Rig::at(100).await;
    let length = coded_length(&rig).await;
    for fault in ["end", "reset"] {
        let model = format!("fault-gzip-{fault}-at-{:04}@canary", length * 2 / 3);
        let answer = rig.post(CHAT, &ask(&model, true)).await;
        assert_eq!((answer.head.status, served_by(&answer)), (200, "canary"));
        let text = answer.text();
        assert_ne!(answer.end, End::Clean, "{fault}: {text}");
        assert!(
            text.contains("\"canary\""),
            "{fault} before content: {text}"
        );
        assert!(!text.contains("\"stop\""), "{fault} after the end: {text}");
    }
    // Where only the end of the coding is missing, the answer is all there.
    let model = format!("fault-gzip-end-at-{:04}@canary", length - 5);
    let answer = rig.post(CHAT, &ask(&model, true)).await;
    assert_eq!((answer.end, served_by(&answer)), (End::Clean, "canary"));
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );
    let rows = rig.finish().await.rows;
    assert_eq!(outcomes(&rows, "canary"), ["soft-error", "reset", "ok"]);
    assert!(rows.iter().all(|row| row.ttft_ms.is_some()), "{rows:?}");
}

#[tokio::test]
async fn the_end_of_a_compressed_stream_is_judged_and_told_like_that_of_others() {
    let canary = "models = { \"mine\" = \"fault-gzip-no-done\" }".to_owned();
    let rig = Rig::with(Setup {
        canary,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let cut = rig.post(CHAT, &ask("mine", true)).await;
    check_head(&cut);
    assert_eq!(cut.end, End::Clean);
    let text = cut.text();
    assert!(
        text.contains("\"model\":\"mine\"") && text.contains("stream_truncated"),
        "{text}"
    );
    assert!(!text.contains("\"model\":\"fault"), "{text}");
    // No choices at all are no answer; a finish reason without a text is one.
    let empty = rig.post(CHAT, &ask("fault-gzip-empty@canary", false)).await;
    assert_eq!(served_by(&empty), "legacy");
    let empty = rig.post(CHAT, &ask("fault-gzip-empty@canary", true)).await;
    assert_eq!(served_by(&empty), "canary");
    let rows = rig.finish().await.rows;
    assert_eq!(outcomes(&rows, "canary"), ["truncated", "soft-error", "ok"]);
}

#[tokio::test]
async fn a_coding_that_cannot_be_read_passes_as_it_is_and_is_no_fault() {
    let rig = Rig::at(100).await;
    for stream in BOTH {
        let ask = ask("fault-br@canary", stream);
        let answer = rig.post(CHAT, &ask).await;
        assert_eq!((answer.end, served_by(&answer)), (End::Clean, "canary"));
        assert_eq!(answer.head.header("content-encoding"), Some("br"));
        let direct = post(rig.canary.port(), CHAT, &ask).await.unwrap();
        assert!(answer.body == direct.body);
    }
    // An error is known by its status alone.
    for fault in ["fault-br-500@canary", "fault-br-429@canary"] {
        assert_eq!(
            served_by(&rig.post(CHAT, &ask(fault, true)).await),
            "legacy"
        );
    }
    let rows = rig.finish().await.rows;
    let expected = ["ok", "ok", "server-error", "rate-limited"];
    assert_eq!(outcomes(&rows, "canary"), expected);
}

#[tokio::test]
async fn every_metered_request_asks_for_a_plain_answer_and_no_other_one() {
    let rig = Rig::at(100).await;
    let pinned = "{\"model\":\"fault-gzip\",\"previous_response_id\":\"resp_1\"}".to_owned();
    let unread = "no json".to_owned();
    let plain = ask("ok", false).to_string();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        for (path, body, provider) in [
            (CHAT, &plain, &rig.canary),
            (RESPONSES, &pinned, &rig.legacy),
            (CHAT, &unread, &rig.legacy),
        ] {
            let length = body.len();
            let request = format!(
                "POST {path} {version}\r\nhost: a\r\naccept-encoding: gzip, br\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            let mut client = rig.client().await;
            client.send(request.as_bytes()).await.unwrap();
            let answer = client.answer().await.unwrap();
            assert_eq!(
                answer.head.header("content-encoding"),
                None,
                "{version} {body}"
            );
            let seen = provider.requests().pop().unwrap();
            let asked: Vec<_> = seen
                .headers
                .iter()
                .filter(|(name, _)| name == "accept-encoding")
                .collect();
            assert_eq!(asked.len(), 1, "{asked:?}");
            assert_eq!(asked[0].1, "identity", "{version} {body}");
        }
    }
    // What is not metered is a matter between the client and legacy.
    let mut client = rig.client().await;
    let headers = [("accept-encoding", "gzip"), ("x-fault", "fault-gzip")];
    client
        .request("GET", "/v1/models", &headers, b"")
        .await
        .unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.head.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body[..3], [0x1f, 0x8b, 8]);
}
