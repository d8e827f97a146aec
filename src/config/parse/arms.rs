//! The two providers: `[arms.legacy]` and `[arms.canary]`.
//!
//! Reads values and fills in defaults. The one rule of weight: a client's credential reaches the
//! canary only when the file says so in words.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::uri::{Authority, Scheme};

use super::super::raw::{Field, Place, Reader, Section, Wrong};
use super::super::timeouts;
use super::super::values::{BaseUrl, Glob, Price};
use super::super::{ArmConfig, Concurrency, Credential, HttpVersion, ModelTimeouts, Timeouts};
use super::{defaults, leaf, secret};
use crate::arm::{Arm, PerArm};

pub(super) fn arms(reader: &mut Reader<'_>, root: &Section<'_>) -> PerArm<ArmConfig> {
    let section = reader.section(root, "arms", "arms");
    PerArm::from_fn(|which| arm(reader, &section, which))
}

fn arm(reader: &mut Reader<'_>, arms: &Section<'_>, which: Arm) -> ArmConfig {
    let section = reader.section(arms, which.as_str(), "arms.*");
    let faults_before = reader.faults.len();
    let is_wrong = arms
        .get(which.as_str())
        .is_some_and(|field| !field.value.is_table());
    let timeouts = arm_timeouts(reader, &section);
    let arm = ArmConfig {
        base_url: base_url(reader, &section, which),
        credential: credential(reader, &section, which),
        models: models(reader, &section),
        timeouts,
        model_timeouts: model_timeouts(reader, &section, timeouts),
        prices: prices(reader, &section),
        ca_file: reader.read(&section, "ca-file", ca_file),
        http: http(reader, &section),
        concurrency: concurrency(reader, &section),
        include_usage: reader
            .read(&section, "include-usage", leaf::boolean)
            .unwrap_or(defaults::INCLUDE_USAGE),
    };
    if is_wrong {
        // It has one fault already; what is missing inside it is no news.
        reader.faults.truncate(faults_before);
    }
    arm
}

fn base_url(reader: &mut Reader<'_>, section: &Section<'_>, which: Arm) -> BaseUrl {
    let Some(field) = section.get("base-url") else {
        let wrong = Wrong::new(
            "missing",
            format!("add base-url = \"https://...\" under [arms.{which}]"),
        );
        reader.fault(&section.place_of("base-url"), wrong);
        return no_url();
    };
    let url = reader.take(&field, |field| {
        let text = leaf::text(field)?;
        BaseUrl::parse(&text).map_err(|problem| {
            Wrong::new(problem, "write, for example, \"https://api.openai.com/v1\"")
        })
    });
    if let Some(url) = &url
        && !url.is_tls()
        && !is_local(url.host())
    {
        reader.warn(
            &field.place,
            "requests and credentials travel unencrypted",
            "use https://",
        );
    }
    url.unwrap_or_else(no_url)
}

/// Stands in for a URL that is missing or wrong; a fault was noted, so no one ever sees it.
fn no_url() -> BaseUrl {
    BaseUrl {
        scheme: Scheme::HTTPS,
        authority: Authority::from_static("invalid"),
        port: 443,
        prefix: String::new(),
        has_v1: false,
    }
}

/// True for hosts that are this machine or have no dot (a neighbour in the same cluster).
fn is_local(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().map_or_else(
        |_| !host.contains('.') || host.ends_with(".local") || host.ends_with(".localhost"),
        |ip| ip.is_loopback(),
    )
}

fn credential(reader: &mut Reader<'_>, section: &Section<'_>, which: Arm) -> Credential {
    match section.get("api-key") {
        Some(field) if field.value.as_str() == Some("client") => Credential::Client,
        Some(field) => secret::secret(reader, &field).map_or(Credential::Client, Credential::Key),
        None => {
            if which == Arm::Canary {
                let wrong = Wrong::new(
                    "missing: without it, clients would send their legacy credential to the canary",
                    "add api-key = \"env:RELAY_API_KEY\" (or \"file:PATH\") under [arms.canary], \
                     or api-key = \"client\" to pass the client's own credential on",
                );
                reader.fault(&section.place_of("api-key"), wrong);
            }
            Credential::Client
        }
    }
}

fn models(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeMap<String, String> {
    let table = free_table(
        reader,
        section,
        "models",
        "a table like { \"gpt-4\" = \"gpt-4.1\" }",
    );
    let mut models = BTreeMap::new();
    for (name, field) in table {
        if let Some(target) = reader.take(&field, leaf::text) {
            models.insert(name, target);
        }
    }
    models
}

fn prices(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeMap<String, Price> {
    let what = "a table like { \"gpt-4.1\" = { input = 2.0, output = 8.0 } }";
    let mut prices = BTreeMap::new();
    for (model, field) in free_table(reader, section, "prices", what) {
        if let Some(price) = price(reader, &field) {
            prices.insert(model, price);
        }
    }
    prices
}

fn price(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Price> {
    let section = reader.open(field, "arms.*.prices.*");
    field.value.as_table()?;
    let mut dollars = |key: &str, required: bool| {
        if required && section.get(key).is_none() {
            let wrong = Wrong::new(
                format!("no price of {key} tokens"),
                format!("add {key} = 1.0 (US dollars per million tokens)"),
            );
            reader.fault(&section.place, wrong);
        }
        reader.read(&section, key, leaf::number)
    };
    let input = dollars("input", true)?;
    let cache_write = dollars("cache-write", false).unwrap_or(input);
    Some(Price {
        input,
        cached_input: dollars("cached-input", false).unwrap_or(input),
        cache_write,
        cache_write_1h: dollars("cache-write-1h", false).unwrap_or(cache_write),
        output: dollars("output", true)?,
    })
}

/// The entries of a table whose keys are free; empty names are faults.
fn free_table<'d>(
    reader: &mut Reader<'_>,
    section: &Section<'d>,
    key: &str,
    what: &str,
) -> Vec<(String, Field<'d>)> {
    let Some(field) = section.get(key) else {
        return Vec::new();
    };
    if !field.value.is_table() {
        reader.fault(&field.place, field.expected(what));
        return Vec::new();
    }
    let mut entries = Vec::new();
    for (name, field) in Section::of_table(&field).entries() {
        if name.trim().is_empty() {
            reader.fault(
                &field.place,
                Wrong::new("an empty model name", "name the model"),
            );
        } else {
            entries.push((name.to_owned(), field));
        }
    }
    entries
}

/// Limits as one table of the file writes them.
struct Written {
    first_byte: Option<Duration>,
    idle: Option<Duration>,
    total: Option<Duration>,
    tokens_per_second: Option<NonZeroU32>,
}

impl Written {
    fn read(reader: &mut Reader<'_>, section: &Section<'_>) -> Self {
        let mut time = |key: &str| reader.read(section, key, leaf::positive_duration);
        let (first_byte, idle, total) = (time("first-byte"), time("idle"), time("total"));
        if let (Some(first_byte), Some(total)) = (first_byte, total)
            && first_byte > total
        {
            warn_order(reader, &section.place_of("first-byte"));
        }
        let speed = |field: &Field<'_>| leaf::whole(field, 1, defaults::TOKENS_PER_SECOND_MOST);
        let speed = reader.read(section, "tokens-per-second", speed);
        Self {
            first_byte,
            idle,
            total,
            tokens_per_second: speed
                .and_then(|speed| u32::try_from(speed).ok())
                .and_then(NonZeroU32::new),
        }
    }

    /// What is not written stays as in `before`.
    fn over(self, before: Timeouts) -> Timeouts {
        Timeouts {
            connect: before.connect,
            first_byte_stream: self.first_byte.unwrap_or(before.first_byte_stream),
            first_byte_plain: self.first_byte.or(before.first_byte_plain),
            idle: self.idle.unwrap_or(before.idle),
            total_stream: self.total.or(before.total_stream),
            total_plain: self.total.unwrap_or(before.total_plain),
            tokens_per_second: self.tokens_per_second.or(before.tokens_per_second),
        }
    }
}

fn arm_timeouts(reader: &mut Reader<'_>, arm: &Section<'_>) -> Timeouts {
    let section = reader.section(arm, "timeouts", "arms.*.timeouts");
    let connect = reader.read(&section, "connect", leaf::positive_duration);
    Written::read(reader, &section).over(Timeouts {
        connect: connect.unwrap_or(defaults::CONNECT),
        first_byte_stream: defaults::FIRST_BYTE_STREAM,
        first_byte_plain: None,
        idle: defaults::IDLE,
        total_stream: None,
        total_plain: defaults::TOTAL_PLAIN,
        tokens_per_second: None,
    })
}

fn model_timeouts(
    reader: &mut Reader<'_>,
    arm: &Section<'_>,
    of_arm: Timeouts,
) -> Vec<ModelTimeouts> {
    let what = "a table like { \"o3*\" = { first-byte = \"5m\", total = \"30m\" } }";
    let mut models = Vec::new();
    for (pattern, field) in free_table(reader, arm, "model-timeouts", what) {
        let section = reader.open(&field, "arms.*.model-timeouts.*");
        models.push(ModelTimeouts {
            models: Glob::new(&pattern),
            timeouts: Written::read(reader, &section).over(of_arm),
        });
    }
    timeouts::sort(&mut models);
    models
}

fn warn_order(reader: &mut Reader<'_>, place: &Place) {
    reader.warn(
        place,
        "first-byte is longer than total and can never be reached",
        "lower first-byte or raise total",
    );
}

fn concurrency(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Concurrency> {
    let count = |least| {
        move |field: &Field<'_>| {
            let number = leaf::whole(field, least, defaults::CONCURRENCY_MOST)?;
            Ok(usize::try_from(number).unwrap_or(usize::MAX))
        }
    };
    let queue = reader.read(section, "queue", count(0));
    let max = reader.read(section, "max-concurrency", count(1))?;
    Some(Concurrency {
        max: NonZeroUsize::new(max)?,
        queue: queue.unwrap_or(defaults::QUEUE),
    })
}

fn http(reader: &mut Reader<'_>, section: &Section<'_>) -> HttpVersion {
    let words = [HttpVersion::One, HttpVersion::Two, HttpVersion::Auto].map(|v| (v.as_str(), v));
    let read = reader.read(section, "http", |field| leaf::word(field, &words));
    read.unwrap_or(defaults::HTTP)
}

fn ca_file(field: &Field<'_>) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(leaf::text(field)?);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Wrong::new(
            format!("{} is no file", path.display()),
            "name a PEM file with the certificates to trust",
        ))
    }
}
