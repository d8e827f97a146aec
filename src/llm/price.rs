//! What an answer cost. Pure arithmetic; a model without a price never comes here, its cost is unknown.
#![deny(clippy::disallowed_methods)]

use crate::config::values::Price;
use crate::sample::Usage;

/// Cost in US dollars. Each input token is charged once: as read from a cache, written to one, or plain.
#[must_use]
pub fn cost_usd(price: &Price, usage: &Usage) -> f64 {
    let cached = usage.cached_input_tokens.min(usage.input_tokens);
    let written = usage.cache_write_tokens.min(usage.input_tokens - cached);
    let plain = usage.input_tokens - cached - written;
    let for_an_hour = usage.cache_write_1h_tokens.min(written);
    let micro_usd = f64::from(plain) * price.input
        + f64::from(cached) * price.cached_input
        + f64::from(written - for_an_hour) * price.cache_write
        + f64::from(for_an_hour) * price.cache_write_1h
        + f64::from(usage.output_tokens) * price.output;
    micro_usd / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_charged_once() {
        let price = Price {
            input: 3.0,
            cached_input: 0.3,
            cache_write: 3.75,
            cache_write_1h: 6.0,
            output: 15.0,
        };
        let cases = [
            ((1_000_000, 0, 0, 0, 0), 3.0),
            ((1_000_000, 1_000_000, 0, 0, 0), 0.3),
            ((1_000_000, 0, 1_000_000, 0, 0), 3.75),
            ((1_000_000, 0, 1_000_000, 1_000_000, 0), 6.0),
            ((0, 0, 0, 0, 1_000_000), 15.0),
            ((10, 4, 5, 0, 2), (3.0 + 1.2 + 18.75 + 30.0) / 1e6),
            ((10, 4, 5, 2, 2), (3.0 + 1.2 + 11.25 + 12.0 + 30.0) / 1e6),
            ((10, 99, 99, 99, 0), 3.0 / 1e6),
            ((0, 0, 0, 9, 0), 0.0),
        ];
        for ((input, cached, write, for_an_hour, output), expected) in cases {
            let usage = Usage {
                input_tokens: input,
                cached_input_tokens: cached,
                cache_write_tokens: write,
                output_tokens: output,
                cache_write_1h_tokens: for_an_hour,
            };
            let cost = cost_usd(&price, &usage);
            assert!((cost - expected).abs() < 1e-12, "{usage:?}: {cost}");
        }
    }
}
