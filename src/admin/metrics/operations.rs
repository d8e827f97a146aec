//! Calls of models under the names of OpenTelemetry's conventions for GenAI, spelled as Prometheus does.
//!
//! They cut what the `cutover_*` series do not: by operation and model, with the arm as a further label.
//! Calls that failed have no duration here: they are counted by outcome elsewhere, and a label of their
//! errors would multiply every bucket.

use super::page::{Labels, Page, Row};
use crate::driver::metrics::Histogram;
use crate::driver::metrics::operations::{Operation, Operations};

type Times = fn(&Operation) -> &Histogram;

pub(super) fn add(page: &mut Page, operations: &Operations) {
    let entries: Vec<(Labels<'_>, &Operation)> = operations
        .entries()
        .map(|(kind, model, operation)| {
            let labels = vec![
                ("gen_ai_operation_name", kind.operation),
                ("gen_ai_provider_name", kind.provider),
                ("gen_ai_request_model", model),
                ("cutover_arm", kind.arm.as_str()),
            ];
            (labels, operation)
        })
        .collect();
    let times: [Row<Times>; 3] = [
        (
            "gen_ai_client_operation_duration_seconds",
            "From a call of a model to the end of its answer, of all attempts that ended well",
            |operation| &operation.duration_s,
        ),
        (
            "gen_ai_server_time_to_first_token_seconds",
            "From a call of a model to the first content of its stream, of all attempts that ended well",
            |operation| &operation.ttft_s,
        ),
        (
            "gen_ai_server_time_per_output_token_seconds",
            "Time per output token after the first of a stream, of all attempts that ended well",
            |operation| &operation.tpot_s,
        ),
    ];
    for (name, help, of) in times {
        let series = entries.iter();
        page.histogram(
            name,
            help,
            series.map(|(labels, entry)| (labels.clone(), of(entry))),
        );
    }
    page.histogram(
        "gen_ai_client_token_usage",
        "Tokens of each call of a model that stated them; input counts cached tokens as well",
        entries.iter().flat_map(|(labels, entry)| {
            let usage = [
                ("input", &entry.input_tokens),
                ("output", &entry.output_tokens),
            ];
            usage.map(|(kind, histogram)| {
                let mut labels = labels.clone();
                labels.push(("gen_ai_token_type", kind));
                (labels, histogram)
            })
        }),
    );
}
