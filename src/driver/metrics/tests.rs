use super::operations::{KEYS_MOST, OTHER, Operations, SERIES_EACH};
use crate::arm::{Arm, Weight};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::config::parse::parse;
use crate::llm::Dialect;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample, Usage};

const DIALECTS: [Dialect; 5] = [
    Dialect::OpenAiChat,
    Dialect::OpenAiCompletions,
    Dialect::OpenAiEmbeddings,
    Dialect::OpenAiResponses,
    Dialect::AnthropicMessages,
];

/// A configuration that names so many models of both arms.
fn config(models: usize) -> Config {
    let prices: Vec<_> = (0..models)
        .map(|number| format!("m{number} = {{ input = 1, output = 1 }}"))
        .collect();
    let prices = prices.join(", ");
    let text = format!(
        "[arms.legacy]\nbase-url = \"http://127.0.0.1:1/v1\"\nprices = {{ {prices} }}\n\
         [arms.canary]\nbase-url = \"http://127.0.0.1:2/v1\"\napi-key = \"client\"\nprices = {{ {prices} }}\n\
         models = {{ fast = \"special\" }}\n"
    );
    parse(&text, &|_| None).unwrap().config
}

fn call(arm: Arm, dialect: Dialect, outcome: Outcome) -> Sample {
    Sample {
        started_at: UnixMillis(1_700_000_000_000),
        rollout: Some(0),
        config_epoch: 1,
        arm,
        assigned: arm,
        weight: Weight::FULL,
        stage: 0,
        role: Role::Live,
        attempt: 1,
        outcome,
        status: 200,
        latency_us: 2_100_000,
        ttft_us: Some(100_000),
        streamed: true,
        complete: true,
        conn_reused: true,
        client_retry: false,
        dialect: Some(dialect),
        model: None,
        usage: Some(Usage {
            input_tokens: 30,
            output_tokens: 101,
            ..Usage::default()
        }),
        upstream_request_id: None,
        key_hash: 0,
        body_hash: 0,
        reported_cost_usd: None,
        tag: None,
        first_role: Role::Live,
    }
}

#[test]
fn ten_thousand_names_of_models_make_no_more_series_than_stated() {
    let mut operations = Operations::default();
    let config = config(200);
    for number in 0..10_000 {
        for (place, dialect) in DIALECTS.into_iter().enumerate() {
            let arm = if (number + place) % 2 == 0 {
                Arm::Legacy
            } else {
                Arm::Canary
            };
            // Every other name is one of the configuration's.
            let model = if number % 2 == 0 {
                format!("m{}", number / 2)
            } else {
                format!("client-{number}")
            };
            operations.record(&config, &model, &call(arm, dialect, Outcome::Ok));
        }
    }
    let entries: Vec<_> = operations.entries().collect();
    assert_eq!(entries.len(), KEYS_MOST + 8);
    let series: usize = entries
        .iter()
        .map(|(_, _, it)| {
            let all = [
                &it.duration_s,
                &it.ttft_s,
                &it.tpot_s,
                &it.input_tokens,
                &it.output_tokens,
            ];
            all.map(|histogram| histogram.cumulative().count() + 3)
                .iter()
                .sum::<usize>()
        })
        .sum();
    assert_eq!(series, (KEYS_MOST + 8) * SERIES_EACH);
    assert_eq!(series, 6_984);
    let counted: u64 = entries.iter().map(|(_, _, it)| it.duration_s.count()).sum();
    assert_eq!(counted, 50_000, "none is lost");
}

#[test]
fn a_name_of_the_configuration_stands_for_itself_and_a_clients_for_none() {
    let config = config(1);
    for (arm, model, expected) in [
        (Arm::Legacy, "m0", "m0"),
        (Arm::Canary, "special", "special"),
        (Arm::Canary, "fast", "fast"),
        (Arm::Legacy, "special", OTHER),
        (Arm::Legacy, "made up", OTHER),
        (Arm::Legacy, "", OTHER),
    ] {
        let mut operations = Operations::default();
        operations.record(&config, model, &call(arm, Dialect::OpenAiChat, Outcome::Ok));
        let (kind, found, _) = operations.entries().next().unwrap();
        assert_eq!((found, kind.arm), (expected, arm), "{model}");
    }
}

#[test]
fn failures_have_no_duration_and_what_is_no_call_is_not_counted() {
    let config = config(1);
    let mut operations = Operations::default();
    let failed = call(Arm::Canary, Dialect::AnthropicMessages, Outcome::Truncated);
    operations.record(&config, "m0", &failed);
    let good = call(Arm::Canary, Dialect::AnthropicMessages, Outcome::Ok);
    operations.record(&config, "m0", &good);
    let other = Sample {
        dialect: None,
        ..good
    };
    operations.record(&config, "m0", &other);
    let entries: Vec<_> = operations.entries().collect();
    let (kind, _, it) = entries[0];
    assert_eq!(entries.len(), 1);
    assert_eq!((kind.operation, kind.provider), ("chat", "anthropic"));
    assert_eq!((it.duration_s.count(), it.output_tokens.count()), (1, 2));
    for (found, expected) in [
        (it.duration_s.sum(), 2.1),
        (it.ttft_s.sum(), 0.1),
        (it.tpot_s.sum(), 0.02),
    ] {
        assert!((found - expected).abs() < 1e-12, "{found}");
    }
}
