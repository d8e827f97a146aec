use super::*;
use crate::demo::standin::{Fault, Profile, Spread, StandIn};

fn quick(seed: u64) -> Profile {
    let spread = |median_ms| Spread {
        median_ms,
        sigma: 0.2,
    };
    Profile {
        first_token: spread(2.0),
        token_gap: spread(0.1),
        ..Profile::new("legacy", seed)
    }
}

fn settings() -> Settings {
    Settings {
        message_models: vec!["claude-test".to_owned()],
        embedding_models: vec!["embed-test".to_owned()],
        embedding_share: 0.2,
        timeout: Duration::from_secs(10),
        ..Settings::new("gpt-test", 400.0, 11)
    }
}

/// Waits for a moment in the counts; the test's own time limit ends a wait in vain.
async fn until(load: &Load, reached: impl Fn(&Counts) -> bool) -> Counts {
    loop {
        let counts = load.counts();
        if reached(&counts) {
            return counts;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn healthy_answers_are_all_ok() {
    let standin = StandIn::start(quick(1)).unwrap();
    let load = Load::start(standin.addr(), settings());
    until(&load, |counts| counts.ok >= 100 && counts.streams > 10).await;
    let latency = load.latency();
    assert!(load.first_byte().count() > 0.0);
    let counts = load.stop().await;
    assert_eq!((counts.failed, counts.in_flight()), (0, 0), "{counts:?}");
    assert!(latency.count() >= 100.0);
    let seen = standin.seen();
    assert_eq!((seen.requests, seen.failures), (counts.sent, 0));
}

#[tokio::test]
async fn every_kind_of_failure_is_counted_as_the_caller_sees_it() {
    for (fault, expected) in [
        (Fault::Status(503), "status 503"),
        (Fault::Reset, "broken off"),
        (Fault::Refuse, "no connection"),
    ] {
        let standin = StandIn::start(quick(2)).unwrap();
        standin.set_fault(fault).await.unwrap();
        let load = Load::start(standin.addr(), settings());
        until(&load, |counts| counts.failed >= 20).await;
        let counts = load.stop().await;
        assert_eq!(counts.ok, 0, "{fault:?}: {counts:?}");
        assert_eq!(
            counts.failures.get(expected),
            Some(&counts.failed),
            "{counts:?}"
        );
    }
}

#[tokio::test]
async fn callers_recover_when_the_provider_does() {
    let standin = StandIn::start(quick(3)).unwrap();
    let load = Load::start(standin.addr(), settings());
    until(&load, |counts| counts.ok >= 20).await;
    standin.set_fault(Fault::Refuse).await.unwrap();
    let counts = until(&load, |counts| counts.failed >= 20).await;
    standin.set_fault(Fault::Healthy).await.unwrap();
    until(&load, |now| now.ok >= counts.ok + 20).await;
    assert_eq!(load.stop().await.in_flight(), 0);
}

#[tokio::test]
async fn the_rate_is_kept_although_answers_are_slow() {
    let slow = Profile {
        first_token: Spread {
            median_ms: 60_000.0,
            sigma: 0.0,
        },
        ..quick(4)
    };
    let standin = StandIn::start(slow).unwrap();
    let load = Load::start(standin.addr(), settings());
    let counts = until(&load, |counts| counts.sent >= 100).await;
    assert_eq!((counts.ok, counts.failed), (0, 0));
    load.set_rate(0.0);
}
