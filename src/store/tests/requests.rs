//! Single requests are found as a filter over all of them would, however rare they are.

use super::*;

/// `count` rows straight into the file, one in `one_failed_in` of them failed, all by legacy.
async fn fill(place: &Place, count: i64, one_failed_in: i64) {
    let mut shell = place.shell().await;
    sqlx::query(
        "INSERT INTO request_kind (made_at, rollout, arm, assigned_arm, stage, weight_bps, streamed, attempt, role,
             config_epoch)
         VALUES ($1, 'default', 'canary', 'legacy', 0, 100, 0, 1, 'live', 1),
             ($1, 'default', 'legacy', 'legacy', 0, 100, 0, 1, 'live', 1)",
    )
    .bind(NOW.0)
    .execute(&mut shell)
    .await
    .unwrap();
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1)
         INSERT INTO request_row (started_at, kind, outcome, latency_us)
         SELECT $3 + i * 100, CASE WHEN i < 10 THEN 1 ELSE 2 END,
             CASE WHEN i % $2 = 0 THEN 'reset' ELSE 'ok' END, 12500 FROM n",
    )
    .bind(count)
    .bind(one_failed_in)
    .bind(NOW.0)
    .execute(&mut shell)
    .await
    .unwrap();
    shell.close().await.unwrap();
}

#[tokio::test]
async fn rare_rows_are_found_behind_many_others() {
    let place = Place::new();
    let store = place.open().await;
    let none = store.requests(RequestFilter::default()).await.unwrap();
    assert_eq!(none, RequestPage::default());
    fill(&place, 60_000, 20_000).await;
    let check = async |filter: RequestFilter, expected: &[i64]| {
        let page = store.requests(filter.clone()).await.unwrap();
        let ids: Vec<i64> = page.requests.iter().map(|row| row.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
        page
    };
    let all = RequestFilter {
        limit: 3,
        ..RequestFilter::default()
    };
    check(all.clone(), &[60_000, 59_999, 59_998]).await;
    let failed = RequestFilter {
        failed: true,
        limit: 10,
        ..all.clone()
    };
    let page = check(failed.clone(), &[40_001, 20_001, 1]).await;
    assert_eq!(page.searched_to, None);
    assert_eq!(page.requests[0].blame, crate::outcome::Blame::Arm);
    assert_eq!(page.requests[0].at, NOW.plus_millis(4_000_000));
    let of_canary = RequestFilter {
        arm: Some(Arm::Canary),
        ..failed.clone()
    };
    check(of_canary.clone(), &[1]).await;
    let by_outcome = RequestFilter {
        outcome: Some(Outcome::Reset),
        before: Some(40_001),
        ..all.clone()
    };
    check(by_outcome, &[20_001, 1]).await;
    let good = RequestFilter {
        arm: Some(Arm::Canary),
        outcome: Some(Outcome::Ok),
        before: Some(5),
        ..all.clone()
    };
    check(good, &[4, 3, 2]).await;
    let elsewhere = RequestFilter {
        rollout: Some("other".to_owned()),
        ..failed
    };
    check(elsewhere, &[]).await;
    let before_all = RequestFilter {
        before: Some(i64::MIN),
        ..all
    };
    check(before_all, &[]).await;
}

#[tokio::test]
async fn no_question_about_requests_reads_all_of_them() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    let mut statements = vec![
        super::super::requests::ENDS.to_owned(),
        super::super::history::PROBES.to_owned(),
    ];
    for failed in [false, true] {
        for outcome in [None, Some(Outcome::Ok), Some(Outcome::Reset)] {
            let filter = RequestFilter {
                failed,
                outcome,
                ..RequestFilter::default()
            };
            statements.push(super::super::requests::statement(&filter));
        }
    }
    let mut shell = place.shell().await;
    for sql in statements {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan = sqlx::query(explain).fetch_all(&mut shell).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        let reads_rows = |step: &&String| step.contains(" r ") || step.contains("request_row");
        let steps: Vec<_> = plan.iter().filter(reads_rows).collect();
        assert!(!steps.is_empty(), "{sql}: {plan:?}");
        for step in steps {
            assert!(step.starts_with("SEARCH "), "{sql}: {plan:?}");
        }
        assert!(
            !plan.iter().any(|step| step.contains("TEMP B-TREE")),
            "{sql}: {plan:?}"
        );
    }
    shell.close().await.unwrap();
}

#[tokio::test]
async fn a_row_whose_kind_is_gone_is_still_shown() {
    let place = Place::new();
    let store = place.open().await;
    fill(&place, 20, 20).await;
    let mut shell = place.shell().await;
    sqlx::raw_sql("DELETE FROM request_kind WHERE id = 1")
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    let all = RequestFilter {
        limit: 100,
        ..RequestFilter::default()
    };
    let page = store.requests(all.clone()).await.unwrap();
    assert_eq!(page.requests.len(), 20);
    let first = page.requests.last().unwrap();
    assert_eq!(
        (first.id, &first.arm, first.outcome.as_str()),
        (1, &None, "reset")
    );
    let of_legacy = RequestFilter {
        arm: Some(Arm::Legacy),
        ..all
    };
    let page = store.requests(of_legacy).await.unwrap();
    assert_eq!(page.requests.len(), 10);
}
