//! The account of costs says what its attempts said, once each, and never takes the unknown for zero.

use super::*;

const DAY_MS: i64 = 86_400_000;

fn served(arm: Arm, role: Role, tag: &str) -> Sample {
    Sample {
        role,
        tag: (!tag.is_empty()).then(|| tag.into()),
        ..sample(arm, Outcome::Ok)
    }
}

/// Every line of the account as text.
async fn lines(place: &Place) -> Vec<String> {
    let rows = place
        .rows(
            "SELECT concat_ws(' ', day, '[' || rollout || ']', arm, model, '[' || tag || ']', requests, unpriced,
                 no_usage, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
                 coalesce(cost_usd, 'unknown'), coalesce(reported_cost_usd, 'unknown')) AS line
             FROM cost_by_day",
        )
        .await;
    rows.iter().map(|row| row.get("line")).collect()
}

#[tokio::test]
async fn attempts_of_every_role_are_billed_whatever_rows_are_kept() {
    for requests in [RequestRows::All, RequestRows::None] {
        let mut place = Place::new();
        place.config.requests = requests;
        let store = place.open().await;
        for role in [Role::Live, Role::Rescue, Role::Retry, Role::Probe] {
            store.record_attempts(vec![attempt(served(Arm::Legacy, role, "search"))]);
        }
        let mut outside = attempt(served(Arm::Legacy, Role::Pinned, ""));
        outside.rollout = None;
        store.record_attempts(vec![outside]);
        // Failed, and cost nothing.
        store.record_attempts(attempts(5, Arm::Canary, Outcome::Connect));
        store.close().await.unwrap();
        let expected = [
            "2027-01-15 [] legacy gpt-5 [] 1 0 0 100 40 0 20 0.25 unknown",
            "2027-01-15 [default] legacy gpt-5 [search] 4 0 0 400 160 0 80 1.0 unknown",
        ];
        assert_eq!(lines(&place).await, expected, "{requests:?}");
    }
}

#[tokio::test]
async fn an_unknown_cost_is_counted_and_a_known_one_is_added_to_it() {
    let place = Place::new();
    let store = place.open().await;
    let mut unpriced = attempt(served(Arm::Canary, Role::Live, ""));
    unpriced.cost_usd = None;
    unpriced.sample.reported_cost_usd = Some(0.5);
    let mut silent = served(Arm::Canary, Role::Live, "");
    silent.usage = None;
    let mut no_number = unpriced.clone();
    no_number.cost_usd = Some(f64::NAN);
    store.record_attempts(vec![unpriced.clone(), attempt(silent)]);
    store.close().await.unwrap();
    let line = "2027-01-15 [default] canary gpt-5 [] 2 1 1 100 40 0 20 unknown 0.5";
    assert_eq!(lines(&place).await, [line]);
    let summary = "SELECT cost_usd, reported_cost_usd, unpriced, no_usage FROM arm_summary";
    let row = &place.rows(summary).await[0];
    assert_eq!(row.get::<Option<f64>, _>("cost_usd"), None);
    assert_eq!(row.get::<Option<f64>, _>("reported_cost_usd"), Some(0.5));
    assert_eq!(
        (row.get::<i64, _>("unpriced"), row.get::<i64, _>("no_usage")),
        (1, 1)
    );

    let store = place.open().await;
    store.record_attempts(vec![
        no_number,
        attempt(served(Arm::Canary, Role::Live, "")),
    ]);
    store.record_attempts(vec![attempt(served(Arm::Canary, Role::Live, ""))]);
    store.close().await.unwrap();
    let line = "2027-01-15 [default] canary gpt-5 [] 5 2 1 400 160 0 80 0.5 1.0";
    assert_eq!(lines(&place).await, [line]);
    let store = place.open().await;
    let totals = store.totals("default-1").await.unwrap().canary;
    assert_eq!(
        (totals.cost_usd, totals.reported_cost_usd),
        (Some(0.5), Some(1.0))
    );
    assert_eq!((totals.unpriced, totals.no_usage), (2, 1));
}

#[tokio::test]
async fn a_day_is_read_back_from_midnight_in_utc_over_all_rollouts() {
    let place = Place::new();
    let store = place.open().await;
    let today = day_of(NOW);
    for (at, tag) in [
        (-1, "before"),
        (0, "first"),
        (DAY_MS - 1, "last"),
        (DAY_MS, "after"),
    ] {
        let mut sample = served(Arm::Canary, Role::Live, tag);
        sample.started_at = UnixMillis(today * DAY_MS + at);
        let mut elsewhere = attempt(sample.clone());
        elsewhere.rollout = None;
        store.record_attempts(vec![attempt(sample), elsewhere]);
    }
    store.close().await.unwrap();
    let store = place.open().await;
    let costs = store.costs_since(today).await.unwrap();
    let found: Vec<_> = costs
        .iter()
        .map(|it| (it.bill.day - today, &*it.bill.tag, it.spent.cost_usd))
        .collect();
    let twice = Some(0.5);
    assert_eq!(
        found,
        [(0, "first", twice), (0, "last", twice), (1, "after", twice)]
    );
    assert_eq!(&*costs[0].bill.model, "gpt-5");
    assert!(store.costs_since(today + 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn days_past_retention_go() {
    let mut place = Place::new();
    place.config.retention = Duration::from_secs(86_400);
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    for days_ago in [0, 1, 2, 3, 40] {
        let mut sample = served(Arm::Canary, Role::Live, "");
        sample.started_at = UnixMillis::now().plus_millis(-days_ago * DAY_MS);
        store.record_attempts(vec![attempt(sample)]);
    }
    kept::eventually(&place, "SELECT sum(requests) FROM arm_total", 5).await;
    // Yesterday has hours that are younger than a day.
    kept::eventually(&place, "SELECT count(*) FROM cost_by_day", 2).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_was_told_of_a_budget_is_kept_once_until_its_day_is_past_retention() {
    let mut place = Place::new();
    let today = day_of(UnixMillis::now());
    let told = |day, percent, usd_per_day| BudgetTold {
        day,
        budget: "all".to_owned(),
        percent,
        usd_per_day,
    };
    let store = place.open().await;
    let recent = [told(today, 80, 0.1), told(today, 80, 10.0)];
    store.record_told(vec![told(today - 9, 100, 10.0), recent[0].clone()]);
    store.record_told(recent.to_vec());
    store.close().await.unwrap();
    place.config.retention = Duration::from_secs(86_400);
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    assert_eq!(store.told_since(today).await.unwrap(), recent);
    assert_eq!(store.told_since(today - 9).await.unwrap().len(), 3);
    kept::eventually(&place, "SELECT count(*) FROM budget_told", 2).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn people_read_costs_per_model_and_per_tag() {
    let place = Place::new();
    let store = place.open().await;
    for (arm, tag) in [
        (Arm::Legacy, "search"),
        (Arm::Canary, "search"),
        (Arm::Canary, ""),
    ] {
        for days in [0, 1] {
            let mut sample = served(arm, Role::Live, tag);
            sample.started_at = NOW.plus_millis(days * DAY_MS);
            store.record_attempts(vec![attempt(sample)]);
        }
    }
    store.close().await.unwrap();
    let models = place
        .rows("SELECT arm, model, since, requests, cache_hit_share, cost_usd FROM cost_summary")
        .await;
    let models: Vec<(String, String, String, i64, f64, f64)> = models
        .iter()
        .map(|row| {
            (
                row.get(0),
                row.get(1),
                row.get(2),
                row.get(3),
                row.get(4),
                row.get(5),
            )
        })
        .collect();
    let line = |arm: &str, requests, cost| {
        (
            arm.to_owned(),
            "gpt-5".to_owned(),
            "2027-01-15".to_owned(),
            requests,
            0.4,
            cost,
        )
    };
    assert_eq!(models, [line("legacy", 2, 0.5), line("canary", 4, 1.0)]);
    let tags = place
        .rows("SELECT tag, arm, requests, cost_usd FROM cost_by_tag")
        .await;
    let tags: Vec<(String, String, i64, f64)> = tags
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    let line = |tag: &str, arm: &str| (tag.to_owned(), arm.to_owned(), 2, 0.5);
    assert_eq!(
        tags,
        [
            line("", "canary"),
            line("search", "legacy"),
            line("search", "canary")
        ]
    );
}

#[tokio::test]
async fn speeds_are_shown_where_they_are_defined_and_nowhere_else() {
    let place = Place::new();
    let store = place.open().await;
    // 20 output tokens: the first after 60 ms, the last after 250 ms.
    let streamed = Sample {
        streamed: true,
        ttft_us: Some(60_000),
        ..sample(Arm::Canary, Outcome::Ok)
    };
    let with_output = |output_tokens| Sample {
        usage: streamed.usage.map(|usage| Usage {
            output_tokens,
            ..usage
        }),
        ..streamed.clone()
    };
    let cut = Sample {
        outcome: Outcome::Truncated,
        ..streamed.clone()
    };
    let cases = [
        (streamed.clone(), Some(10.0), Some(80.0)),
        (sample(Arm::Canary, Outcome::Ok), None, Some(80.0)),
        (with_output(2), Some(190.0), Some(8.0)),
        (with_output(1), None, Some(4.0)),
        (with_output(0), None, None),
        (cut, None, None),
        (sample(Arm::Canary, Outcome::Reset), None, None),
    ];
    for (sample, _, _) in &cases {
        store.record_attempts(vec![attempt(sample.clone())]);
    }
    store.close().await.unwrap();
    let rows = place
        .rows("SELECT tpot_ms, tokens_per_s FROM request_log")
        .await;
    for (row, (sample, tpot_ms, tokens_per_s)) in rows.iter().zip(&cases) {
        assert_eq!(row.get::<Option<f64>, _>(0), *tpot_ms, "{sample:?}");
        assert_eq!(row.get::<Option<f64>, _>(1), *tokens_per_s, "{sample:?}");
        assert_eq!(
            sample.tpot_us(),
            tpot_ms.map(|ms| ms * 1_000.0),
            "{sample:?}"
        );
        assert_eq!(sample.tokens_per_s(), *tokens_per_s, "{sample:?}");
    }
    let buckets = "SELECT sum(count) FROM latency_bucket WHERE metric = 'tpot'";
    assert_eq!(place.number(buckets).await, 2);
    let summary = place
        .rows("SELECT tpot_p50_ms, tpot_p99_ms FROM arm_summary")
        .await;
    for (column, expected) in [(0, 10.0), (1, 190.0)] {
        let found: f64 = summary[0].get(column);
        assert!(
            (found / expected - 1.0_f64).abs() < 0.0105,
            "{found}, not {expected}"
        );
    }
}

#[tokio::test]
async fn a_request_row_names_its_tag_and_what_the_provider_says_of_its_cost() {
    let place = Place::new();
    let store = place.open().await;
    let mut sample = served(Arm::Canary, Role::Live, "search");
    sample.reported_cost_usd = Some(0.125);
    sample.usage = Some(Usage {
        input_tokens: 100,
        cache_write_tokens: 50,
        cache_write_1h_tokens: 30,
        ..Usage::default()
    });
    store.record_attempts(vec![attempt(sample)]);
    store.close().await.unwrap();
    let row = &place
        .rows(
            "SELECT tag, reported_cost_usd, cache_write_tokens, cache_write_1h_tokens FROM request",
        )
        .await[0];
    assert_eq!(row.get::<String, _>(0), "search");
    assert_eq!(row.get::<Option<f64>, _>(1), Some(0.125));
    assert_eq!((row.get::<i64, _>(2), row.get::<i64, _>(3)), (50, 30));
}
