//! Who may use the proxy: the keys of clients, their rates, and the counts of both.
//!
//! Without clients it asks nothing and costs nothing. With them, every request needs the key of one. Keys are
//! compared by their hashes, with all clients and in constant time, and no answer says what was wrong. The key
//! ends here: `rewrite` puts the arm's own in its place. Counting touches a line of memory that only one worker
//! writes; the one word that workers share is the bucket of a client with a rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::answer::Answer;
use super::rate::Bucket;
use super::refuse;
use super::rewrite::{API_KEY, X_API_KEY};
use crate::clock::monotonic_ns;
use crate::config::clients::{ClientConfig, KeyHash};
use crate::llm::Dialect;

/// The exact wait for SDKs, which prefer it to whole seconds.
const RETRY_AFTER_MS: header::HeaderName = header::HeaderName::from_static("retry-after-ms");
const NS_PER_MS: u64 = 1_000_000;
const MS_PER_S: u64 = 1_000;

/// What workers share of all clients of one configuration.
#[derive(Debug, Default)]
pub struct Clients {
    known: Vec<Client>,
    /// Requests without the key of a client.
    unauthorized: Arc<Tally>,
}

/// What workers share of one client.
#[derive(Debug)]
struct Client {
    config: ClientConfig,
    bucket: Option<Arc<Bucket>>,
    tally: Arc<Tally>,
}

/// Counts of one client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were let in, or, of no client, that were turned away.
    pub requests: u64,
    /// Requests over its rate, answered with 429.
    pub limited: u64,
}

/// One worker's counts of one client. Only that worker writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    requests: AtomicU64,
    limited: AtomicU64,
}

/// All workers' counts of one client; lives on over reloads.
#[derive(Debug, Default)]
struct Tally(Mutex<Sum>);

#[derive(Debug, Default)]
struct Sum {
    lines: Vec<Arc<Line>>,
    /// Of lines that nobody writes any more.
    before: Counts,
}

impl Line {
    fn add_one(word: &AtomicU64) {
        // Nobody else writes it: no locked instruction is needed.
        word.store(
            word.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }
}

impl Counts {
    fn add(&mut self, line: &Line) {
        self.requests += line.requests.load(Ordering::Relaxed);
        self.limited += line.limited.load(Ordering::Relaxed);
    }
}

impl Tally {
    /// A line for one more worker, or for a worker's next configuration.
    fn line(&self) -> Arc<Line> {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sum.fold();
        let line = Arc::<Line>::default();
        sum.lines.push(Arc::clone(&line));
        line
    }

    fn read(&self) -> Counts {
        let sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = sum.before;
        sum.lines.iter().for_each(|line| counts.add(line));
        counts
    }
}

impl Sum {
    /// Keeps the list as short as there are workers.
    fn fold(&mut self) {
        let Self { lines, before } = self;
        // Alone with it, and not before, all that was counted there is seen.
        lines.retain_mut(|line| match Arc::get_mut(line) {
            Some(line) => {
                before.add(line);
                false
            }
            None => true,
        });
    }
}

impl Clients {
    /// The clients of a configuration. Those that were there before keep their counts, and their buckets as long
    /// as the rate is the same.
    #[must_use]
    pub fn new(configs: &[ClientConfig], before: &Self) -> Self {
        let client = |config: &ClientConfig| {
            let mut old = before.known.iter();
            let old = old.find(|client| client.config.name == config.name);
            let bucket = config.rate.map(|rate| {
                let old = old.and_then(|client| client.bucket.as_ref());
                let same = old.filter(|bucket| bucket.rate() == rate);
                same.map_or_else(|| Arc::new(Bucket::new(rate)), Arc::clone)
            });
            Client {
                config: config.clone(),
                bucket,
                tally: old
                    .map(|client| Arc::clone(&client.tally))
                    .unwrap_or_default(),
            }
        };
        Self {
            known: configs.iter().map(client).collect(),
            unauthorized: Arc::clone(&before.unauthorized),
        }
    }

    /// Each client with its counts since it was added, in the order of the file.
    pub fn counts(&self) -> impl Iterator<Item = (&ClientConfig, Counts)> {
        let read = |client: &'_ Client| client.tally.read();
        self.known
            .iter()
            .map(move |client| (&client.config, read(client)))
    }

    /// Requests that were turned away because they had no client's key.
    #[must_use]
    pub fn unauthorized(&self) -> u64 {
        self.unauthorized.read().requests
    }
}

/// One worker's view of the clients.
#[derive(Debug)]
pub struct Gate {
    known: Vec<Known>,
    unauthorized: Arc<Line>,
}

#[derive(Debug)]
struct Known {
    key_hash: KeyHash,
    bucket: Option<Arc<Bucket>>,
    line: Arc<Line>,
}

/// Why a request is not let in.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It has no client's key.
    Unknown,
    /// Its client asked too often.
    TooOften { wait_ns: u64 },
}

impl Gate {
    /// For one worker.
    #[must_use]
    pub fn new(clients: &Clients) -> Self {
        let known = |client: &Client| Known {
            key_hash: client.config.key_hash.clone(),
            bucket: client.bucket.clone(),
            line: client.tally.line(),
        };
        Self {
            known: clients.known.iter().map(known).collect(),
            unauthorized: clients.unauthorized.line(),
        }
    }

    /// Lets a request in, and counts it, or says what to answer.
    ///
    /// # Errors
    /// With the answer, in the client's dialect.
    pub fn check(
        &self,
        headers: &HeaderMap,
        dialect: Option<Dialect>,
    ) -> Result<(), Box<Response<Answer>>> {
        if self.known.is_empty() {
            return Ok(());
        }
        self.admit(headers, monotonic_ns)
            .map_err(|refusal| Box::new(refused(&refusal, dialect)))
    }

    fn admit(&self, headers: &HeaderMap, now_ns: impl FnOnce() -> u64) -> Result<(), Refusal> {
        let Some(client) = self.client_of(headers) else {
            Line::add_one(&self.unauthorized.requests);
            return Err(Refusal::Unknown);
        };
        if let Some(bucket) = &client.bucket
            && let Err(wait_ns) = bucket.admit(now_ns())
        {
            Line::add_one(&client.line.limited);
            return Err(Refusal::TooOften { wait_ns });
        }
        Line::add_one(&client.line.requests);
        Ok(())
    }

    /// The client whose key a request shows in any of the ways in which SDKs show one.
    fn client_of(&self, headers: &HeaderMap) -> Option<&Known> {
        let shown = [&header::AUTHORIZATION, &X_API_KEY, &API_KEY];
        let mut found = None;
        for value in shown.into_iter().filter_map(|name| headers.get(name)) {
            let hash = KeyHash::of(key_in(value));
            // No early end: how long it takes says nothing of who it was.
            for client in &self.known {
                if client.key_hash.is(&hash) {
                    found = Some(client);
                }
            }
        }
        found
    }
}

/// The key in a header's value, without the word `Bearer`.
fn key_in(value: &HeaderValue) -> &[u8] {
    const SCHEME: &[u8] = b"bearer ";
    let value = value.as_bytes().trim_ascii();
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => key.trim_ascii_start(),
        _ => value,
    }
}

fn refused(refusal: &Refusal, dialect: Option<Dialect>) -> Response<Answer> {
    let Refusal::TooOften { wait_ns } = refusal else {
        let message =
            "this needs the key of a client of this proxy, sent as your SDK sends its API key";
        let status = StatusCode::UNAUTHORIZED;
        let mut answer = refuse::answer(dialect, status, "unauthorized", message);
        let challenge = HeaderValue::from_static("Bearer");
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        return answer;
    };
    let message = "this client's rate limit is reached; try again in a moment";
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut answer = refuse::answer(dialect, status, "client-rate-limited", message);
    let wait_ms = wait_ns.div_ceil(NS_PER_MS);
    let headers = answer.headers_mut();
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait_ms));
    headers.insert(
        header::RETRY_AFTER,
        HeaderValue::from(wait_ms.div_ceil(MS_PER_S)),
    );
    answer
}

#[cfg(test)]
mod tests;
