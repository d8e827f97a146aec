//! What changes on the way through, and that nothing else does.

use serde_json::json;

use crate::client::{End, post};
use crate::harness::{
    CANARY_KEY, CHAT, LEGACY_KEY, MESSAGES, RESPONSES, Rig, Setup, ask, exchange, served_by,
};
use crate::provider::PRIVATE_HEADERS;

const CLIENT_KEY: &str = "sk-client-0123456789";

#[tokio::test]
async fn base_urls_are_joined_without_doubling_anything() {
    for (base, asked, expected) in [
        ("", CHAT, CHAT),
        ("/", CHAT, CHAT),
        ("/v1", CHAT, CHAT),
        ("/v1/", CHAT, CHAT),
        ("/v1", "/chat/completions", CHAT),
        ("/api/openai/v1", CHAT, "/api/openai/v1/chat/completions"),
        ("/api/openai/", CHAT, "/api/openai/v1/chat/completions"),
        ("/v1beta/openai", CHAT, "/v1beta/openai/chat/completions"),
        ("/api/paas/v4/", CHAT, "/api/paas/v4/chat/completions"),
        (
            "/v1",
            "/v1/chat/completions?api-version=1&x=%20a",
            "/v1/chat/completions?api-version=1&x=%20a",
        ),
        (
            "/p/v1",
            "/v1/chat/completions?a=/v1/",
            "/p/v1/chat/completions?a=/v1/",
        ),
    ] {
        let path = Some(base.to_owned());
        let setup = Setup {
            canary_path: path.clone(),
            legacy_path: path,
            ..Setup::default()
        };
        let rig = Rig::with(setup).await;
        rig.set_weight("default", 100).await;
        rig.post(asked, &ask("ok", false)).await;
        rig.set_weight("default", 0).await;
        rig.post(asked, &ask("ok", false)).await;
        for provider in [&rig.canary, &rig.legacy] {
            let request = &provider.requests()[0];
            assert_eq!(request.target, expected, "{base} and {asked}");
            let host = format!("127.0.0.1:{}", provider.port());
            assert_eq!(request.header("host"), Some(host.as_str()));
        }
    }
}

#[tokio::test]
async fn each_provider_sees_its_own_key_in_the_clients_dialect_and_no_other() {
    let legacy = "api-key = \"env:LEGACY_KEY\"".to_owned();
    for (legacy, legacy_key) in [(legacy, LEGACY_KEY), (String::new(), CLIENT_KEY)] {
        let rig = Rig::with(Setup {
            legacy,
            ..Setup::default()
        })
        .await;
        for (percent, provider, key) in
            [(100, &rig.canary, CANARY_KEY), (0, &rig.legacy, legacy_key)]
        {
            rig.set_weight("default", percent).await;
            for (path, sent) in [
                (CHAT, "authorization"),
                (RESPONSES, "authorization"),
                (MESSAGES, "x-api-key"),
                (MESSAGES, "authorization"),
                (CHAT, "api-key"),
            ] {
                let bearer = |key: &str| match sent {
                    "authorization" => format!("Bearer {key}"),
                    _ => key.to_owned(),
                };
                let mut client = rig.client().await;
                let headers = [(sent, bearer(CLIENT_KEY)), ("x-other", "kept".to_owned())];
                let headers = headers
                    .each_ref()
                    .map(|(name, value)| (*name, value.as_str()));
                exchange(&mut client, path, &headers, &ask("ok", false)).await;
                let seen = provider.requests().pop().unwrap();
                assert_eq!(
                    seen.header(sent),
                    Some(bearer(key).as_str()),
                    "{path} {sent}"
                );
                assert_eq!(seen.header("x-other"), Some("kept"));
                let text = format!("{seen:?}");
                for other in [CLIENT_KEY, CANARY_KEY, LEGACY_KEY] {
                    assert_eq!(text.contains(other), other == key, "{path} {sent}: {text}");
                }
            }
        }
        assert_eq!(rig.canary.requests().len(), 5);
        assert_eq!(rig.legacy.requests().len(), 5);
    }
}

#[tokio::test]
async fn a_request_without_a_credential_gets_the_key_that_its_path_speaks() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    for (path, name, value) in [
        (CHAT, "authorization", format!("Bearer {CANARY_KEY}")),
        (MESSAGES, "x-api-key", CANARY_KEY.to_owned()),
    ] {
        exchange(&mut client, path, &[], &ask("ok", false)).await;
        let seen = rig.canary.requests().pop().unwrap();
        assert_eq!(seen.header(name), Some(value.as_str()), "{path}");
    }
}

#[tokio::test]
async fn a_rescued_request_shows_each_provider_its_own_key_only() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let bearer = format!("Bearer {CLIENT_KEY}");
    let headers = [("authorization", bearer.as_str()), ("cookie", "session=1")];
    let answer = exchange(&mut client, CHAT, &headers, &ask("fault-500@canary", false)).await;
    assert_eq!(served_by(&answer), "legacy");
    let (canary, legacy) = (rig.canary.requests(), rig.legacy.requests());
    assert!(!format!("{canary:?}").contains(CLIENT_KEY));
    assert!(!format!("{legacy:?}").contains(CANARY_KEY));
    assert_eq!(legacy[0].header("authorization"), Some(bearer.as_str()));
    assert_eq!(
        (canary[0].header("cookie"), legacy[0].header("cookie")),
        (None, None)
    );
}

#[tokio::test]
async fn headers_of_the_connection_end_here_and_all_others_pass() {
    let rig = Rig::at(100).await;
    for (path, provider) in [(CHAT, &rig.canary), ("/v1/files", &rig.legacy)] {
        let mut client = rig.client().await;
        let headers = [
            ("connection", "keep-alive, X-Secret, x-second"),
            ("x-secret", "1"),
            ("x-second", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eDp5"),
            ("te", "trailers"),
            ("trailer", "x-t"),
            ("upgrade", "h2c"),
            ("accept-encoding", "gzip, br"),
            ("anthropic-beta", "one"),
            ("anthropic-beta", "two"),
            ("x-stainless-lang", "python"),
            ("user-agent", "OpenAI/Python"),
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("traceparent", "00-1-2-01"),
        ];
        exchange(&mut client, path, &headers, &ask("ok", false)).await;
        let seen = provider.requests().pop().unwrap();
        for stripped in [
            "connection",
            "x-secret",
            "x-second",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "te",
            "trailer",
            "upgrade",
            "transfer-encoding",
            "expect",
        ] {
            assert_eq!(seen.header(stripped), None, "{path}: {stripped}");
        }
        for (name, value) in &headers[12..] {
            assert!(
                seen.headers
                    .contains(&((*name).to_owned(), (*value).to_owned())),
                "{name}"
            );
        }
        let betas = seen
            .headers
            .iter()
            .filter(|(name, _)| name == "anthropic-beta");
        assert_eq!(
            betas.map(|(_, value)| value.as_str()).collect::<Vec<_>>(),
            ["one", "two"]
        );
        // What is metered must be readable; everything else keeps what the client can take.
        let encoding = if path == CHAT { "identity" } else { "gzip, br" };
        assert_eq!(seen.header("accept-encoding"), Some(encoding), "{path}");
    }
}

#[tokio::test]
async fn a_mapped_model_changes_and_not_one_byte_beside_it() {
    let canary = r#"models = { "gpt-4" = "vendor/gpt-4.1" }"#.to_owned();
    let rig = Rig::with(Setup {
        canary,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let odd = "{ \"x\":1.50e1,\t\"messages\" : [ {\"content\":\"\\u0067pt-4 \\\"model\\\": \\\"gpt-4\\\"\",
        \"role\":\"user\"} ],\"model\" :  \"gpt-4\" , \"nested\":{\"model\":\"gpt-4\"},\"big\":12345678901234567890 }";
    let mapped = odd.replacen(
        "\"model\" :  \"gpt-4\"",
        "\"model\" :  \"vendor/gpt-4.1\"",
        1,
    );
    let send = async |body: &str| {
        let mut client = rig.client().await;
        client
            .request("POST", CHAT, &[], body.as_bytes())
            .await
            .unwrap();
        client.answer().await.unwrap()
    };
    assert_eq!(served_by(&send(odd).await), "canary");
    let seen = rig.canary.requests().pop().unwrap();
    assert_eq!(String::from_utf8(seen.body).unwrap(), mapped);
    // Another model is not touched, and legacy has no map.
    let other = odd.replace("gpt-4", "gpt-4o");
    send(&other).await;
    assert_eq!(rig.canary.requests().pop().unwrap().body, other.as_bytes());
    rig.set_weight("default", 0).await;
    send(odd).await;
    assert_eq!(rig.legacy.requests().pop().unwrap().body, odd.as_bytes());
}

#[tokio::test]
async fn the_answer_names_a_mapped_model_as_the_client_did() {
    let faults = [
        "ok",
        "fault-crlf",
        "fault-one-byte-writes",
        "fault-until-fin",
    ];
    let maps = faults.map(|fault| format!("\"my-{fault}\" = \"{fault}\""));
    let rig = Rig::with(Setup {
        canary: format!("models = {{ {} }}", maps.join(", ")),
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    for fault in faults {
        for path in [
            CHAT,
            "/v1/completions",
            "/v1/embeddings",
            MESSAGES,
            RESPONSES,
        ] {
            for stream in [false, true] {
                let alias = format!("my-{fault}");
                let answer = rig.post(path, &ask(&alias, stream)).await;
                let what = format!("{path} {fault} {stream}");
                assert_eq!((answer.end, served_by(&answer)), (End::Clean, "canary"));
                let direct = post(rig.canary.port(), path, &ask(fault, stream)).await;
                let named = |name: &str| format!("\"model\":\"{name}\"");
                let expected = direct
                    .unwrap()
                    .text()
                    .replace(&named(fault), &named(&alias));
                assert!(answer.text() == expected, "{what}");
                assert!(expected.contains(&named(&alias)), "{what}");
                if let Some(length) = answer.head.header("content-length") {
                    assert_eq!(length.parse(), Ok(answer.body.len()), "{what}");
                }
            }
        }
    }
    for row in rig.finish().await.rows {
        assert_eq!(row.outcome, "ok", "{row:?}");
        assert!(row.model.unwrap().starts_with("my-"));
    }
}

#[tokio::test]
async fn a_rescue_names_the_model_as_the_client_did() {
    let canary = r#"models = { "gpt-4" = "fault-500" }"#.to_owned();
    let rig = Rig::with(Setup {
        canary,
        ..Setup::default()
    })
    .await;
    rig.set_weight("default", 100).await;
    let answer = rig.post(CHAT, &ask("gpt-4", false)).await;
    assert_eq!(served_by(&answer), "legacy");
    assert_eq!(rig.canary.requests()[0].json()["model"], "fault-500");
    assert_eq!(rig.legacy.requests()[0].json()["model"], "gpt-4");
}

#[tokio::test]
async fn requests_of_any_method_and_body_pass_byte_for_byte() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let binary: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for (method, target, body) in [
        ("POST", "/v1/files?purpose=x", binary.as_slice()),
        ("PUT", "/v1/x", b"{ \"model\" : \"ok\" }"),
        ("PATCH", "/v1/x", b"\0"),
        ("DELETE", "/v1/files/file-1", b""),
        ("GET", "/v1/files/a%2Fb//c?x=1?2", b""),
        ("OPTIONS", "/v1/x", b""),
        ("PROPFIND", "/v1/x", b"<x/>"),
    ] {
        client.request(method, target, &[], body).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(
            (answer.head.status, answer.end),
            (200, End::Clean),
            "{method} {target}"
        );
        let seen = rig.legacy.requests().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            (method, target)
        );
        assert!(seen.body == body, "{method} {target}");
    }
    // What claims to be JSON and is not goes to legacy as it is.
    for body in [&b"{\"model\": \"ok\""[..], b"[]", b"\xff\xfe", b""] {
        client.request("POST", CHAT, &[], body).await.unwrap();
        assert_eq!(served_by(&client.answer().await.unwrap()), "legacy");
        assert_eq!(rig.legacy.requests().pop().unwrap().body, body);
    }
}

#[tokio::test]
async fn head_requests_have_the_head_of_a_get_and_no_body() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let mut lengths = Vec::new();
    for method in ["HEAD", "GET", "HEAD"] {
        client
            .request(method, "/v1/models", &[], b"")
            .await
            .unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.head.status, answer.end), (200, End::Clean));
        assert_eq!(answer.body.is_empty(), method == "HEAD");
        lengths.push(answer.head.header("content-length").map(str::to_owned));
        assert_eq!(rig.legacy.requests().pop().unwrap().method, method);
    }
    assert!(lengths[0].is_some(), "{lengths:?}");
    assert!(
        lengths.iter().all(|length| *length == lengths[0]),
        "{lengths:?}"
    );
}

#[tokio::test]
async fn answers_are_those_of_the_provider_with_their_framing() {
    let rig = Rig::at(100).await;
    for path in [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        MESSAGES,
        RESPONSES,
    ] {
        for (model, stream) in [
            ("ok", false),
            ("ok", true),
            ("fault-400", false),
            ("fault-until-fin", false),
        ] {
            let ask = ask(model, stream);
            let ours = rig.post(path, &ask).await;
            let direct = post(rig.canary.port(), path, &ask).await.unwrap();
            assert_eq!(
                (ours.head.status, ours.end),
                (direct.head.status, direct.end)
            );
            assert!(ours.body == direct.body, "{path} {model} {stream}");
            for name in ["content-type", "content-length", "cache-control"] {
                // A length may be added where the provider gave none.
                if direct.head.header(name).is_some() {
                    assert_eq!(
                        ours.head.header(name),
                        direct.head.header(name),
                        "{path} {name}"
                    );
                }
            }
            let id = ["x-request-id", "request-id"].map(|name| ours.head.header(name));
            assert!(
                id.iter().flatten().next().is_some(),
                "{path}: the provider's id is lost"
            );
        }
    }
}

#[tokio::test]
async fn limits_and_retry_advice_of_a_provider_reach_the_client() {
    let rig = Rig::at(0).await;
    let answer = rig.post(CHAT, &ask("fault-429-retry-after-7", false)).await;
    assert_eq!(
        (answer.head.status, answer.head.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!(answer.json()["error"]["code"], json!("rate_limit_exceeded"));
}

#[tokio::test]
async fn cookies_credentials_and_connection_headers_of_an_answer_end_here() {
    let rig = Rig::at(100).await;
    for (path, model, stream) in [
        (CHAT, "fault-private-headers", false),
        (MESSAGES, "fault-private-headers", true),
    ] {
        let ask = ask(model, stream);
        let direct = post(rig.canary.port(), path, &ask).await.unwrap();
        let ours = rig.post(path, &ask).await;
        assert_eq!((served_by(&ours), ours.end), ("canary", End::Clean));
        assert_eq!(ours.head.header("x-cutover-rollout"), Some("default"));
        let (open, private) = PRIVATE_HEADERS.split_last().unwrap();
        assert_eq!(ours.head.header(open.0), Some(open.1));
        for (name, value) in private {
            let header = ((*name).to_owned(), (*value).to_owned());
            assert!(
                direct.head.headers.contains(&header),
                "{name} was not sent at all"
            );
            assert!(
                !ours.head.headers.contains(&header),
                "{name}: {:?}",
                ours.head
            );
        }
        assert_eq!(ours.head.header("set-cookie"), None);
    }
}

#[tokio::test]
async fn a_request_for_the_whole_server_stays_one() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    client.request("OPTIONS", "*", &[], b"").await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 200);
    assert_eq!(rig.legacy.requests()[0].target, "*");
}

#[tokio::test]
async fn no_credential_and_no_text_of_a_request_or_an_answer_reaches_the_store() {
    let rig = Rig::at(100).await;
    let mut client = rig.client().await;
    let bearer = format!("Bearer {CLIENT_KEY}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-api-key", CLIENT_KEY),
    ];
    for model in [
        "marker-of-a-model",
        "fault-500@canary",
        "fault-401",
        "fault-400",
    ] {
        let mut body = ask(model, false);
        body["user"] = json!("user-in-the-clear");
        body["messages"][0]["content"] = json!("text-in-the-clear");
        exchange(&mut client, CHAT, &headers, &body).await;
    }
    drop(client);
    let finished = rig.finish().await;
    let holds = |text: &str| {
        finished
            .database
            .windows(text.len())
            .any(|w| w == text.as_bytes())
    };
    assert!(
        holds("marker-of-a-model"),
        "the search finds nothing at all"
    );
    for secret in [
        CLIENT_KEY,
        CANARY_KEY,
        "user-in-the-clear",
        "text-in-the-clear",
        "asked and answers",
        "scripted",
    ] {
        assert!(!holds(secret), "{secret}");
    }
}
