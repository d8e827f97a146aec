use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::*;

fn quick(seed: u64) -> Profile {
    Profile {
        first_token: Spread {
            median_ms: 1.0,
            sigma: 0.3,
        },
        token_gap: Spread {
            median_ms: 0.1,
            sigma: 0.3,
        },
        ..Profile::new("legacy", seed)
    }
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    /// The text of the body, or that it broke off.
    body: Result<String, ()>,
}

async fn ask(addr: SocketAddr, path: &str, body: &Value) -> Result<Answer, String> {
    let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let (method, body) = match body {
        Value::Null => ("GET", String::new()),
        body => ("POST", body.to_string()),
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "stand-in")
        .header("authorization", "Bearer key-1")
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let response = sender
        .send_request(request)
        .await
        .map_err(|e| e.to_string())?;
    let (head, body) = response.into_parts();
    let body = body.collect().await;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body
            .map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap())
            .map_err(|_| ()),
    })
}

fn chat(stream: bool) -> Value {
    json!({"model": "gpt-test", "stream": stream, "user": "u1",
        "stream_options": if stream { json!({"include_usage": true}) } else { Value::Null },
        "messages": [{"role": "user", "content": "hello"}]})
}

fn data_of(body: &str) -> Vec<Value> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn a_chat_stream_says_the_same_as_the_plain_answer() {
    let standin = StandIn::start(quick(1)).unwrap();
    let path = "/v1/chat/completions";
    let plain = ask(standin.addr(), path, &chat(false)).await.unwrap();
    let plain: Value = serde_json::from_str(&plain.body.unwrap()).unwrap();
    let stream = ask(standin.addr(), path, &chat(true)).await.unwrap();
    assert_eq!(
        stream.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert!(stream.headers.contains_key("x-ratelimit-remaining-tokens"));
    let body = stream.body.unwrap();
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    let events = data_of(&body);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(plain["choices"][0]["message"]["content"], text);
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(*usage, plain["usage"]);
    assert!(usage["completion_tokens"].as_u64().unwrap() > 0);
    let seen = standin.seen();
    assert_eq!((seen.requests, seen.streams, seen.failures), (2, 1, 0));
    assert!(seen.keys.contains(&key_hash("key-1")));
}

#[tokio::test]
async fn a_message_stream_runs_from_start_to_stop() {
    let standin = StandIn::start(quick(2)).unwrap();
    let body = json!({"model": "claude-test", "max_tokens": 5, "stream": true,
        "messages": [{"role": "user", "content": "hello"}]});
    let answer = ask(standin.addr(), "/v1/messages", &body).await.unwrap();
    assert!(answer.headers.contains_key("request-id"));
    let events = data_of(&answer.body.unwrap());
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[0], "message_start");
    assert_eq!(
        kinds[kinds.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], "max_tokens");
    assert_eq!(delta["usage"]["output_tokens"], 5);
}

#[tokio::test]
async fn unknown_models_missing_paths_and_bad_bodies_are_the_callers_fault() {
    let profile = Profile {
        models: vec!["gpt-test".to_owned()],
        ..quick(3)
    };
    let standin = StandIn::start(profile).unwrap();
    let embeddings = json!({"model": "gpt-test", "input": ["a", "b"]});
    for (path, body, status) in [
        ("/v1/chat/completions", chat(false), 200),
        ("/v1/embeddings", embeddings, 200),
        ("/v1/models", Value::Null, 200),
        ("/v1/chat/completions", json!({"model": "other"}), 404),
        ("/v1/nothing", Value::Null, 404),
    ] {
        let answer = ask(standin.addr(), path, &body).await.unwrap();
        assert_eq!(answer.status, status, "{path} {body}");
    }
}

#[tokio::test]
async fn faults_happen_live_and_heal() {
    let standin = StandIn::start(quick(4)).unwrap();
    let ask = async |stream| ask(standin.addr(), "/v1/chat/completions", &chat(stream)).await;
    for status in [429, 500, 529] {
        standin.set_fault(Fault::Status(status)).await.unwrap();
        let answer = ask(false).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 429);
    }
    standin.set_fault(Fault::Reset).await.unwrap();
    for stream in [false, true] {
        let answer = ask(stream).await.unwrap();
        assert_eq!((answer.status, answer.body), (200, Err(())), "{stream}");
    }
    standin.set_fault(Fault::Refuse).await.unwrap();
    let refused = ask(false).await.err().unwrap();
    assert!(refused.contains("refused"), "{refused}");
    standin.set_fault(Fault::Refuse).await.unwrap();
    standin.set_fault(Fault::Healthy).await.unwrap();
    assert_eq!(ask(true).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_slow_provider_takes_its_factor_longer() {
    let standin = StandIn::start(quick(8)).unwrap();
    standin.set_fault(Fault::Slow(100.0)).await.unwrap();
    let before = std::time::Instant::now();
    let path = "/v1/chat/completions";
    ask(standin.addr(), path, &chat(false)).await.unwrap();
    // The median is 100 ms; only a lower bound holds on a busy machine.
    let took = before.elapsed();
    assert!(took > Duration::from_millis(30), "{took:?}");
}

#[tokio::test]
async fn the_same_question_gets_the_same_bytes() {
    let standin = StandIn::start(quick(9)).unwrap();
    let ask = async |body: Value| {
        let answer = ask(standin.addr(), "/v1/chat/completions", &body).await;
        answer.unwrap().body.unwrap()
    };
    let first = ask(chat(true)).await;
    assert_eq!(first, ask(chat(true)).await);
    let mut other = chat(true);
    other["messages"][0]["content"] = json!("another question");
    assert_ne!(first, ask(other).await);
}

#[tokio::test]
async fn refusing_resets_connections_that_are_open() {
    let standin = StandIn::start(quick(5)).unwrap();
    let stream = TcpStream::connect(standin.addr()).await.unwrap();
    // One answered request proves that the connection was accepted.
    stream.writable().await.unwrap();
    let request = "GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n\r\n";
    assert_eq!(stream.try_write(request.as_bytes()).unwrap(), request.len());
    stream.readable().await.unwrap();
    let mut buffer = [0; 4096];
    assert!(stream.try_read(&mut buffer).unwrap() > 0);
    standin.set_fault(Fault::Refuse).await.unwrap();
    let error = loop {
        stream.readable().await.unwrap();
        match stream.try_read(&mut buffer) {
            Ok(0) => panic!("the connection ended cleanly"),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_error_rate_fails_about_that_share() {
    let profile = Profile {
        error_rate: 1.0,
        ..quick(6)
    };
    let standin = StandIn::start(profile).unwrap();
    let path = "/v1/chat/completions";
    assert!(
        ask(standin.addr(), path, &chat(false))
            .await
            .unwrap()
            .status
            >= 500
    );
    standin.set_fault(Fault::ErrorRate(0.3)).await.unwrap();
    let mut failed = 0;
    for _ in 0..100 {
        let answer = ask(standin.addr(), path, &chat(false)).await.unwrap();
        failed += u32::from(answer.status != 200);
    }
    assert!((15..=45).contains(&failed), "{failed} of 100 failed");
}

#[test]
fn times_are_spread_around_the_median() {
    let spread = Spread {
        median_ms: 100.0,
        sigma: 0.5,
    };
    let mut rng = StdRng::seed_from_u64(7);
    let mut times: Vec<f64> = (0..4_001).map(|_| spread.draw_ms(&mut rng)).collect();
    times.sort_by(f64::total_cmp);
    assert!(
        (times[2_000] / 100.0 - 1.0).abs() < 0.05,
        "{}",
        times[2_000]
    );
    // The upper quartile of a lognormal is median * exp(0.6745 sigma).
    assert!(
        (times[3_000] / 140.1 - 1.0).abs() < 0.05,
        "{}",
        times[3_000]
    );
}
