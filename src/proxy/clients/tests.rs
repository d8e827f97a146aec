//! Who is let in, who is not, and what is counted.

use super::*;
use crate::config::clients::Rate;

const APP: &str = "cutover_app-0123456789abcdef0123456789abcdef";
const BATCH: &str = "cutover_batch-0123456789abcdef0123456789abcdef";

fn config(name: &str, key: &str, rate: Option<&str>) -> ClientConfig {
    ClientConfig {
        name: name.to_owned(),
        key_hash: KeyHash::of(key.as_bytes()),
        rate: rate.map(|rate| rate.parse::<Rate>().unwrap()),
    }
}

fn both(rate: Option<&str>) -> Vec<ClientConfig> {
    vec![config("app", APP, rate), config("batch", BATCH, None)]
}

fn clients(configs: &[ClientConfig]) -> Clients {
    Clients::new(configs, &Clients::default())
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn shown(key: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {key}"))])
}

/// Requests and limited of each client, then the unauthorized.
fn counts(clients: &Clients) -> (Vec<(u64, u64)>, u64) {
    let known = clients
        .counts()
        .map(|(_, counts)| (counts.requests, counts.limited));
    (known.collect(), clients.unauthorized())
}

#[test]
fn a_client_is_known_by_its_key_in_any_dialect() {
    let clients = clients(&both(None));
    let gate = Gate::new(&clients);
    let check = |list: &[(&'static str, &str)], expected: bool| {
        let admitted = gate.admit(&headers(list), || 0);
        let wanted = if expected {
            Ok(())
        } else {
            Err(Refusal::Unknown)
        };
        assert_eq!(admitted, wanted, "{list:?}");
    };
    check(&[("authorization", &format!("Bearer {APP}"))], true);
    check(&[("authorization", &format!("bearer   {APP} "))], true);
    check(&[("authorization", APP)], true);
    check(&[("x-api-key", APP)], true);
    check(&[("api-key", BATCH)], true);
    // An SDK may send a leftover of its environment beside it.
    check(
        &[("authorization", "Bearer other"), ("x-api-key", APP)],
        true,
    );
    check(&[], false);
    check(&[("authorization", "Bearer")], false);
    check(&[("authorization", "Bearer ")], false);
    check(&[("authorization", &format!("Basic {APP}"))], false);
    check(
        &[("authorization", &format!("Bearer {}", &APP[1..]))],
        false,
    );
    check(
        &[("authorization", &format!("Bearer {}", APP.to_uppercase()))],
        false,
    );
    check(&[("x-goog-api-key", APP)], false);
    check(&[("cookie", APP), ("x-cutover-arm", APP)], false);
    let hash = KeyHash::of(APP.as_bytes()).to_string();
    check(&[("x-api-key", &hash)], false);
    assert_eq!(counts(&clients), (vec![(5, 0), (1, 0)], 9));
}

#[test]
fn without_clients_nobody_is_asked() {
    let gate = Gate::new(&Clients::default());
    assert!(gate.check(&HeaderMap::new(), None).is_ok());
}

#[test]
fn what_is_over_the_rate_is_refused_for_that_client_alone() {
    let clients = clients(&both(Some("2/s")));
    let (one, other) = (Gate::new(&clients), Gate::new(&clients));
    let ask = |gate: &Gate, key: &str, now_ns: u64| gate.admit(&shown(key), || now_ns);
    let second = 1_000_000_000;
    assert_eq!(ask(&one, APP, second), Ok(()));
    assert_eq!(ask(&other, APP, second), Ok(()), "both workers share it");
    let wait_ns = second / 2;
    for gate in [&one, &other] {
        assert_eq!(ask(gate, APP, second), Err(Refusal::TooOften { wait_ns }));
        assert_eq!(ask(gate, BATCH, second), Ok(()));
    }
    assert_eq!(ask(&one, APP, second + wait_ns), Ok(()));
    assert_eq!(counts(&clients), (vec![(3, 2), (2, 0)], 0));
}

#[test]
fn a_refusal_tells_sdks_when_to_come_again_and_not_what_was_wrong() {
    let header = |answer: &Response<Answer>, name: &str| {
        let value = answer.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let unknown = refused(&Refusal::Unknown, None);
    assert_eq!(unknown.status(), 401);
    assert_eq!(
        header(&unknown, "www-authenticate").as_deref(),
        Some("Bearer")
    );
    assert_eq!(header(&unknown, "x-should-retry").as_deref(), Some("false"));
    for (wait_ns, ms, s) in [
        (1, "1", "1"),
        (999_999_999, "1000", "1"),
        (1_000_000_001, "1001", "2"),
        (60_000_000_000, "60000", "60"),
    ] {
        let answer = refused(&Refusal::TooOften { wait_ns }, None);
        assert_eq!(answer.status(), 429);
        assert_eq!(header(&answer, "retry-after-ms").as_deref(), Some(ms));
        assert_eq!(header(&answer, "retry-after").as_deref(), Some(s));
        assert_eq!(header(&answer, "x-should-retry").as_deref(), Some("true"));
    }
}

#[test]
fn counts_and_buckets_live_on_over_reloads() {
    let first = clients(&both(Some("1/min")));
    let gate = Gate::new(&first);
    assert_eq!(gate.admit(&shown(APP), || 0), Ok(()));
    assert!(gate.admit(&shown(APP), || 0).is_err());
    assert!(gate.admit(&HeaderMap::new(), || 0).is_err());
    // A worker may still use the old one for a moment.
    let second = Clients::new(&both(Some("1/min")), &first);
    let next = Gate::new(&second);
    assert_eq!(gate.admit(&shown(BATCH), || 0), Ok(()));
    drop((gate, first));
    assert!(
        next.admit(&shown(APP), || 0).is_err(),
        "the bucket is still empty"
    );
    assert_eq!(counts(&second), (vec![(1, 2), (1, 0)], 1));
    // Without its rate, then with another, then without the client.
    let third = Clients::new(&both(None), &second);
    let gate = Gate::new(&third);
    assert_eq!(gate.admit(&shown(APP), || 0), Ok(()));
    let fourth = Clients::new(&both(Some("2/min")), &third);
    assert_eq!(Gate::new(&fourth).admit(&shown(APP), || 0), Ok(()));
    assert_eq!(counts(&fourth).0, [(3, 2), (1, 0)]);
    let fifth = Clients::new(&both(None)[1..], &fourth);
    assert!(Gate::new(&fifth).admit(&shown(APP), || 0).is_err());
    assert_eq!(counts(&fifth), (vec![(1, 0)], 2));
}

#[test]
fn a_thousand_reloads_leave_no_more_lines_than_workers() {
    let mut all = clients(&both(None));
    let mut gates = [Gate::new(&all), Gate::new(&all)];
    for _ in 0..1_000 {
        all = Clients::new(&both(None), &all);
        for gate in &mut gates {
            assert_eq!(gate.admit(&shown(APP), || 0), Ok(()));
            *gate = Gate::new(&all);
        }
    }
    assert_eq!(counts(&all), (vec![(2_000, 0), (0, 0)], 0));
    let lines = all.known[0].tally.0.lock().unwrap().lines.len();
    assert!(lines <= 4, "{lines}");
}
