//! HTTP/2 on either side, TLS for clients, and what happens to requests when a shared connection ends.

pub(crate) mod ends;
mod frames;

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{End, post};
use crate::harness::{
    CHAT, LEGACY_KEY, MESSAGES, Rig, Row, Setup, ask, in_time, served_by, wait_until,
};
use ends::{Certificate, Ended, H2Answer, H2Client, H2End, plain_request, request};

/// The provider that gave the answer, by its own word and by cutover's.
fn served(answer: &H2Answer) -> &str {
    let name = |name: &str| answer.headers.get(name).map(|v| v.to_str().unwrap());
    assert_eq!(name("x-provider"), name("x-cutover-arm"), "{answer:?}");
    name("x-provider").unwrap()
}

fn outcomes(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.outcome.as_str()).collect()
}

/// A rig whose canary is reached over HTTP/2, at 100%.
async fn canary_over_http2(end: &H2End) -> Rig {
    let (canary, canary_url) = end.as_canary();
    let rig = Rig::with(Setup {
        canary,
        canary_url: Some(canary_url),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    rig
}

#[tokio::test]
async fn http_2_in_the_clear_is_served_beside_http_1_on_the_same_port() {
    let rig = Rig::at(100).await;
    let mut client = H2Client::connect(rig.port()).await;
    for target in [CHAT, MESSAGES] {
        for stream in [false, true] {
            let body = ask("ok", stream);
            let answer = client.post(target, &body).await;
            assert_eq!((answer.status, answer.end), (StatusCode::OK, Ended::Clean));
            assert_eq!(served(&answer), "canary");
            let old = rig.post(target, &body).await;
            assert_eq!((old.head.status, served_by(&old)), (200, "canary"));
            assert_eq!(answer.body.len(), old.body.len(), "{target} {stream}");
            for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
                assert!(!answer.headers.contains_key(name), "{answer:?}");
            }
        }
    }
    // What reaches the provider is the same, whatever the client spoke.
    let seen = rig.canary.requests();
    let heads: Vec<_> = seen[..2]
        .iter()
        .map(|r| {
            (
                &r.target,
                r.header("host"),
                r.header("content-length"),
                &r.body,
            )
        })
        .collect();
    assert_eq!(heads[0], heads[1]);
    let host = format!("127.0.0.1:{}", rig.canary.port());
    assert_eq!(heads[0].1, Some(host.as_str()));
}

#[tokio::test]
async fn a_client_that_dribbles_its_first_bytes_is_served() {
    let rig = Rig::at(100).await;
    let body = ask("ok", false).to_string();
    let length = body.len();
    let mut client = rig.client().await;
    client.send(b"P").await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let rest = format!("OST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}");
    client.send(rest.as_bytes()).await.unwrap();
    assert_eq!(served_by(&client.answer().await.unwrap()), "canary");
    // Nobody who stops within the first bytes is taken for HTTP/2, or waited for by others.
    let mut stuck = rig.client().await;
    stuck.send(b"PRI").await.unwrap();
    assert_eq!(rig.post(CHAT, &ask("ok", false)).await.head.status, 200);
    stuck
        .send(b"NT / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(stuck.answer().await.unwrap().head.status, 200);
}

#[tokio::test]
async fn an_upload_that_is_streamed_over_http_2_arrives_whole() {
    let rig = Rig::at(100).await;
    let mut client = H2Client::connect(rig.port()).await;
    let (pieces, asked) = request("/v1/files");
    let answer = tokio::spawn(async move { client.send(asked).await });
    let mut expected = Vec::new();
    for number in 0..40_u8 {
        let piece = vec![number; 50_000];
        expected.extend_from_slice(&piece);
        pieces.send(piece.into()).await.unwrap();
    }
    drop(pieces);
    let answer = answer.await.unwrap();
    assert_eq!((answer.status, answer.end), (StatusCode::OK, Ended::Clean));
    let seen = rig.legacy.requests().pop().unwrap();
    assert!(seen.body == expected, "{} bytes", seen.body.len());
}

#[tokio::test]
async fn an_answer_that_breaks_off_resets_its_stream_and_no_other() {
    let rig = Rig::at(0).await;
    let mut client = H2Client::connect(rig.port()).await;
    let other = client.post_later(CHAT, &ask("fault-gap-30", true));
    let broken = client.post(CHAT, &ask("fault-reset-at-700", true)).await;
    assert_eq!(broken.status, StatusCode::OK);
    assert_eq!(broken.end, Ended::Reset, "{broken:?}");
    let other = in_time("the other stream", other).await.unwrap();
    assert_eq!(other.end, Ended::Clean);
    assert!(other.text().contains("[DONE]"));
    let after = client.post(CHAT, &ask("ok", false)).await;
    assert_eq!((after.status, after.end), (StatusCode::OK, Ended::Clean));
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_cancelled_at_the_provider() {
    let rig = Rig::at(100).await;
    let mut client = H2Client::connect(rig.port()).await;
    let other = client.post_later(CHAT, &ask("fault-gap-20", true));
    let gone = client.begin(plain_request(CHAT, &ask("fault-gap-300", true)));
    let gone = in_time("the head", gone).await;
    assert_eq!(gone.status(), StatusCode::OK);
    drop(gone);
    rig.canary.wait_hung_up(1).await;
    let waiting = client.begin(plain_request(CHAT, &ask("fault-stall-head", true)));
    let waiting = tokio::spawn(waiting);
    wait_until("it is under way", || rig.canary.requests().len() == 3).await;
    waiting.abort();
    rig.canary.wait_hung_up(2).await;
    assert_eq!(in_time("the other", other).await.unwrap().end, Ended::Clean);
    let mut found = rig.finish().await.rows;
    found.sort_by(|a, b| a.outcome.cmp(&b.outcome));
    assert_eq!(outcomes(&found), ["client-gone", "client-gone", "ok"]);
}

#[tokio::test]
async fn what_http_2_can_say_wrongly_about_its_host_is_refused() {
    let rig = Rig::at(100).await;
    let mut client = H2Client::connect(rig.port()).await;
    let with = |name: &'static str, value: &str, times: usize| {
        let mut asked = plain_request(CHAT, &ask("ok", false));
        for _ in 0..times {
            asked.headers_mut().append(name, value.parse().unwrap());
        }
        asked
    };
    for (asked, status) in [
        (with("host", "test", 1), 200),
        (with("host", "TEST", 1), 200),
        (with("host", "other", 1), 400),
        (with("host", "test", 2), 400),
        (with("x-h", "1", 100), 200),
        (with("x-h", "1", 200), 431),
        (with("x-large", &"y".repeat(70_000), 1), 431),
    ] {
        let case = format!("{:?}", asked.headers().len());
        let answer = client.send(asked).await;
        assert_eq!(answer.status.as_u16(), status, "{case} headers");
    }
    assert_eq!(rig.canary.requests().len(), 3);
}

#[tokio::test]
async fn five_hundred_streams_of_one_client_share_few_connections_to_the_provider() {
    let behind = crate::provider::Provider::start("canary").await;
    let end = H2End::plain(behind.port()).await;
    let rig = canary_over_http2(&end).await;
    let mut client = H2Client::connect(rig.port()).await;
    let running: Vec<_> = (0..500)
        .map(|_| client.post_later(CHAT, &ask("fault-gap-150", true)))
        .collect();
    for answer in running {
        let answer = in_time("a stream", answer).await.unwrap();
        assert_eq!((answer.status, answer.end), (StatusCode::OK, Ended::Clean));
        assert_eq!(served(&answer), "canary");
        assert!(answer.text().contains("[DONE]"));
    }
    assert!(end.most_at_once() >= 400, "{} at once", end.most_at_once());
    let connections = end.connections();
    assert!((5..=12).contains(&connections), "{connections} connections");
    let rows = rig.finish().await.rows;
    assert!(rows.len() == 500 && rows.iter().all(|row| row.outcome == "ok"));
}

#[tokio::test]
async fn resets_in_rapid_succession_harm_nobody_else() {
    let rig = Rig::at(100).await;
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", rig.port()));
    let (mut sender, connection) = h2::client::handshake(tcp.await.unwrap()).await.unwrap();
    let attacker = tokio::spawn(connection);
    let other = rig.client().await;
    let mut other = other;
    let mut refused = 0;
    for _ in 0..1_000 {
        let asked = plain_request(CHAT, &ask("fault-stall-head", true)).map(drop);
        let Ok(mut ready) = sender.ready().await else {
            refused += 1;
            break;
        };
        if let Ok((_, mut stream)) = ready.send_request(asked, false) {
            stream.send_reset(h2::Reason::CANCEL);
        }
        sender = ready;
    }
    println!(
        "the connection was {}",
        if refused > 0 { "closed" } else { "kept" }
    );
    let body = ask("ok", false).to_string();
    other
        .request("POST", CHAT, &[], body.as_bytes())
        .await
        .unwrap();
    let answer = in_time("somebody else", other.answer()).await.unwrap();
    assert_eq!((answer.head.status, answer.end), (200, End::Clean));
    attacker.abort();
    // Nothing of it is left under way.
    let finished = in_time("the end", rig.finish()).await;
    let bad = |row: &&Row| row.outcome != "ok" && row.outcome != "client-gone";
    assert_eq!(finished.rows.iter().filter(bad).count(), 0);
}

#[tokio::test]
async fn a_provider_that_says_goodbye_in_mid_flight_loses_no_request() {
    let behind = crate::provider::Provider::start("canary").await;
    let end = H2End::plain(behind.port()).await;
    let rig = canary_over_http2(&end).await;
    let mut client = H2Client::connect(rig.port()).await;
    for round in 1..=3 {
        let running: Vec<_> = (0..20)
            .map(|_| client.post_later(CHAT, &ask("fault-gap-100", true)))
            .collect();
        wait_until("they run", || end.at_once() >= 20).await;
        end.say_goodbye();
        for _ in 0..20 {
            let answer = client.post(CHAT, &ask("ok", false)).await;
            assert_eq!((answer.status, served(&answer)), (StatusCode::OK, "canary"));
        }
        for answer in running {
            let answer = in_time("a stream", answer).await.unwrap();
            assert_eq!((answer.status, answer.end), (StatusCode::OK, Ended::Clean));
        }
        assert!(end.connections() > round, "no new connection");
    }
    let rows = rig.finish().await.rows;
    let failed: Vec<_> = rows.iter().filter(|row| row.outcome != "ok").collect();
    assert!(rows.len() == 120 && failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn a_provider_that_dies_under_fifty_streams_fails_each_of_them_once_and_is_found_again() {
    let behind = crate::provider::Provider::start("canary").await;
    let end = H2End::plain(behind.port()).await;
    let rig = canary_over_http2(&end).await;
    let mut client = H2Client::connect(rig.port()).await;
    let mut running = Vec::new();
    for _ in 0..50 {
        running.push(client.begin(plain_request(CHAT, &ask("fault-gap-200", true))));
    }
    let mut bodies = Vec::new();
    for begun in running {
        bodies.push(in_time("a head", begun).await.into_body());
    }
    end.cut();
    for body in bodies {
        let (_, ended) = ends::read(body).await;
        assert_eq!(ended, Ended::Reset);
    }
    let after = client.post(CHAT, &ask("ok", true)).await;
    assert_eq!((after.status, served(&after)), (StatusCode::OK, "canary"));
    let rows = rig.finish().await.rows;
    let reset = rows.iter().filter(|row| row.outcome == "reset").count();
    assert_eq!((rows.len(), reset), (51, 50), "{:?}", outcomes(&rows));
}

#[tokio::test]
async fn http_2_is_spoken_to_a_provider_whose_tls_offers_it() {
    let behind = crate::provider::Provider::start("canary").await;
    let end = H2End::with_tls(behind.port()).await;
    for (http, is_http2) in [("auto", true), ("2", true), ("1", false)] {
        let (canary, canary_url) = end.as_canary();
        let canary = canary.replace("http = \"2\"", &format!("http = \"{http}\""));
        // The first connection is opened ahead of any request.
        let before = end.connections();
        let rig = Rig::with(Setup {
            canary,
            canary_url: Some(canary_url),
            ..Setup::default()
        })
        .await;
        rig.set_weight("default", 100).await;
        for stream in [false, true] {
            let answer = post(rig.port(), CHAT, &ask("ok", stream)).await.unwrap();
            // A client that is offered nothing else falls back to legacy.
            let expected = if is_http2 { "canary" } else { "legacy" };
            assert_eq!(
                (answer.end, served_by(&answer)),
                (End::Clean, expected),
                "{http}"
            );
        }
        rig.finish().await;
        assert_eq!(end.connections() - before > 0, is_http2, "{http}");
    }
}

#[tokio::test]
async fn requests_over_http_2_carry_the_arms_host_and_key_and_nothing_of_the_connection() {
    let behind = crate::provider::Provider::start("canary").await;
    let end = H2End::plain(behind.port()).await;
    let rig = canary_over_http2(&end).await;
    let headers = [
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("authorization", "Bearer client"),
        ("x-kept", "1"),
    ];
    let mut client = rig.client().await;
    let body = ask("ok", false).to_string();
    client
        .request("POST", CHAT, &headers, body.as_bytes())
        .await
        .unwrap();
    assert_eq!(served_by(&client.answer().await.unwrap()), "canary");
    let seen = end.heads().pop().unwrap();
    assert_eq!(
        seen.uri.to_string(),
        format!("http://127.0.0.1:{}{CHAT}", end.port())
    );
    for gone in [
        "host",
        "connection",
        "x-hop",
        "keep-alive",
        "transfer-encoding",
    ] {
        assert!(!seen.headers.contains_key(gone), "{seen:?}");
    }
    assert_eq!(seen.headers["x-kept"], "1");
    assert_eq!(
        seen.headers["content-length"],
        body.len().to_string().as_str()
    );
    let key = format!("Bearer {}", crate::harness::CANARY_KEY);
    assert_eq!(seen.headers["authorization"], key.as_str());
    assert_ne!(key, format!("Bearer {LEGACY_KEY}"));
}

#[tokio::test]
async fn a_client_that_gives_up_resets_its_stream_to_the_provider_alone() {
    let behind = crate::provider::Provider::start("canary").await;
    let end = H2End::plain(behind.port()).await;
    let rig = canary_over_http2(&end).await;
    let mut stays = H2Client::connect(rig.port()).await;
    let other = stays.post_later(CHAT, &ask("fault-gap-200", true));
    let mut leaves = rig.client().await;
    let body = ask("fault-gap-300", true).to_string();
    leaves
        .request("POST", CHAT, &[], body.as_bytes())
        .await
        .unwrap();
    assert_eq!(leaves.head().await.unwrap().status, 200);
    drop(leaves);
    behind.wait_hung_up(1).await;
    let other = in_time("the other", other).await.unwrap();
    assert_eq!((other.end, end.connections()), (Ended::Clean, 1));
}

#[tokio::test]
async fn a_drain_says_goodbye_and_lets_streams_finish() {
    let rig = Rig::at(100).await;
    let mut client = H2Client::connect(rig.port()).await;
    let idle = H2Client::connect(rig.port()).await;
    let begun = client.begin(plain_request(CHAT, &ask("fault-gap-50", true)));
    let body = in_time("the head", begun).await.into_body();
    let reading = tokio::spawn(ends::read(body));
    let finished = in_time("the end", rig.finish()).await;
    let (text, ended) = reading.await.unwrap();
    assert_eq!(ended, Ended::Clean);
    assert!(String::from_utf8(text).unwrap().contains("[DONE]"));
    assert_eq!(outcomes(&finished.rows), ["ok"]);
    wait_until("both are closed", || client.is_closed() && idle.is_closed()).await;
}

/// A rig that clients reach by TLS.
async fn behind_tls(certificate: &Certificate) -> Rig {
    let rig = Rig::with(Setup {
        proxy: certificate.as_listener(),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    rig
}

#[tokio::test]
async fn clients_agree_on_the_version_of_http_in_the_tls_handshake() {
    let certificate = Certificate::new();
    let rig = behind_tls(&certificate).await;
    for stream in [false, true] {
        let mut client = H2Client::connect_tls(rig.port(), &certificate).await;
        let answer = client.post(CHAT, &ask("ok", stream)).await;
        assert_eq!((answer.status, answer.end), (StatusCode::OK, Ended::Clean));
        assert_eq!(served(&answer), "canary");
    }
    for alpn in [&[][..], &["http/1.1"], &["http/1.0"]] {
        let mut tls = certificate.connect(rig.port(), alpn).await.unwrap();
        let body = ask("ok", true).to_string();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        tls.write_all(&[head.as_bytes(), body.as_bytes()].concat())
            .await
            .unwrap();
        let mut answer = String::new();
        in_time("the answer", tls.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("[DONE]") && answer.ends_with("0\r\n\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_holds_up_nobody() {
    let certificate = Certificate::new();
    let rig = behind_tls(&certificate).await;
    let silent: Vec<_> = [rig.client().await, rig.client().await].into();
    let mut plain = rig.client().await;
    plain
        .send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut client = H2Client::connect_tls(rig.port(), &certificate).await;
    let answer = client.post(CHAT, &ask("ok", false)).await;
    assert_eq!(answer.status, StatusCode::OK);
    // Who does not speak TLS at all is hung up on.
    assert!(in_time("the end", plain.head()).await.is_err());
    drop(silent);
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_ends_well_under_tls() {
    let certificate = Certificate::new();
    let rig = behind_tls(&certificate).await;
    for version in ["1.1", "1.0"] {
        let mut tls = certificate.connect(rig.port(), &[]).await.unwrap();
        let body = ask("fault-reset-at-700", true).to_string();
        let head = format!(
            "POST {CHAT} HTTP/{version}\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        tls.write_all(&[head.as_bytes(), body.as_bytes()].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        let read = in_time("the end", tls.read_to_end(&mut answer)).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.contains(" 200 "), "{text}");
        // Neither a last chunk nor, where there are no chunks, a goodbye of TLS.
        let is_broken = read.is_err() || (version == "1.1" && !text.ends_with("0\r\n\r\n"));
        assert!(is_broken, "{version}: {read:?} {text}");
    }
    let mut client = H2Client::connect_tls(rig.port(), &certificate).await;
    let broken = client.post(CHAT, &ask("fault-reset-at-700", true)).await;
    assert_eq!(broken.end, Ended::Reset);
}

#[tokio::test]
async fn metering_is_the_same_over_every_pair_of_versions() {
    let behind = crate::provider::Provider::start("canary").await;
    let end = H2End::plain(behind.port()).await;
    let certificate = Certificate::new();
    let mut all: Vec<Vec<Value>> = Vec::new();
    for over_http2 in [false, true] {
        let (canary, canary_url) = end.as_canary();
        let (canary, canary_url) = if over_http2 {
            (canary, canary_url)
        } else {
            (String::new(), behind.base_url())
        };
        let rig = Rig::with(Setup {
            proxy: certificate.as_listener(),
            canary,
            canary_url: Some(canary_url),
            ..Setup::default()
        })
        .await;
        rig.set_weight("default", 100).await;
        let mut client = H2Client::connect_tls(rig.port(), &certificate).await;
        for (target, model) in [
            (CHAT, "ok"),
            (MESSAGES, "ok"),
            (CHAT, "fault-429-retry-after-7"),
        ] {
            for stream in [false, true] {
                client.post(target, &ask(model, stream)).await;
            }
        }
        let rows = rig.finish().await.rows;
        let facts = |row: &Row| {
            serde_json::json!([row.arm, row.outcome, row.status, row.streamed, row.tokens])
        };
        all.push(rows.iter().map(facts).collect());
    }
    assert_eq!(all[0], all[1]);
    assert!(all[0].len() >= 6, "{:?}", all[0]);
}
