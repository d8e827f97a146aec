//! The meter of one attempt: it watches the answer go by and leaves exactly one sample, on every way out.
//!
//! It copies no body that it need not read, and knows the dialect only through `llm`. If it is dropped
//! before the attempt ended, the client went away; what is read on after that only adds usage.

mod seen;
mod ticket;
mod whole;

use std::rc::Rc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use crate::llm::{self, Dialect, StreamWatch};
use crate::outcome::Outcome;
use crate::proxy::learner::Learner;
use crate::proxy::places::Place;
use crate::proxy::plane::Worker;
use crate::proxy::span::OpenSpan;
use crate::sample::{self, Role, Sample};
use crate::upstream::limit::Slot;
pub use ticket::Ticket;
use whole::{Tail, Whole};

/// A plain answer larger than this is not read for usage and soft errors; it passes all the same.
pub const PLAIN_MAX_BYTES: usize = 1024 * 1024;

/// One attempt's meter.
#[derive(Debug)]
pub struct Meter {
    worker: Rc<Worker>,
    sample: Sample,
    /// When the attempt could send: the connection's set-up says nothing about the provider's speed.
    sent_at: Instant,
    watch: Watch,
    /// The arm got a key of cutover's: a refused key is then its account's matter, not the client's.
    key_injected: bool,
    /// The request asks for usage where the client did not.
    asks_usage: bool,
    reported: bool,
    /// The answer was given, and counted, before.
    is_replay: bool,
    /// Its place among the process's, and under the arm's limit, if that has one.
    held: Option<(Place, Option<Slot>)>,
    /// Whose breaker learns how it goes; `None` once that is told, or when nothing is dialled.
    ticket: Option<Ticket>,
    /// The canary's only: what learns which state its answers give out.
    learner: Option<Rc<Learner>>,
    /// When the client went away, if the answer is read on without it: its latency in microseconds.
    left_us: Option<u64>,
    /// The request's span, if it is traced.
    span: Option<Rc<OpenSpan>>,
}

/// How an answer's body is read.
#[derive(Debug)]
enum Watch {
    /// Not at all: the outcome is known, or nothing is to be learned.
    Blind(Outcome),
    /// As server-sent events.
    Stream(Box<StreamWatch>),
    /// As one value, judged at its end; the chunks share memory with those that pass.
    Whole(Whole),
    /// As one value that is too large to be read: its outcome is known, its usage stands at its end.
    Tail(Tail),
}

impl Meter {
    /// Starts the clock of an attempt. `sample` holds all that is known before it is sent.
    #[must_use]
    pub fn start(
        worker: &Rc<Worker>,
        sample: Sample,
        key_injected: bool,
        ticket: Option<Ticket>,
        now: Instant,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            sample,
            sent_at: now,
            watch: Watch::Blind(Outcome::Ok),
            key_injected,
            asks_usage: false,
            reported: false,
            is_replay: false,
            held: None,
            ticket,
            learner: None,
            left_us: None,
            span: None,
        }
    }

    /// The answer is the canary's: what state it gives out is learned as it goes by.
    pub fn learn_into(&mut self, learner: &Rc<Learner>) {
        self.learner = Some(Rc::clone(learner));
    }

    /// How it ends is told to the request's span, if it has one.
    #[must_use]
    pub fn traced_by(mut self, span: Option<&Rc<OpenSpan>>) -> Self {
        self.span = span.map(Rc::clone);
        self
    }

    /// The client goes away now. `Some`: a meter for the rest of the answer, which books the attempt as
    /// `client-gone` with the time until now, and with the usage that is still to come; this one is spent.
    /// `None`: nothing would be learned from the rest, or cutover itself is on its way out.
    pub fn read_on(&mut self) -> Option<Self> {
        let tells_usage = match &self.watch {
            Watch::Blind(_) => false,
            Watch::Stream(_) | Watch::Tail(_) => true,
            Watch::Whole(whole) => whole.tells_usage(),
        };
        if self.reported || self.worker.draining.get() || !tells_usage {
            return None;
        }
        let mut spent = Self::start(&self.worker, self.sample.clone(), false, None, self.sent_at);
        spent.reported = true;
        let mut rest = std::mem::replace(self, spent);
        rest.left_us = Some(rest.elapsed_us(Instant::now()));
        Some(rest)
    }

    /// Who serves the request.
    #[must_use]
    pub const fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Holds its places until the attempt ends.
    pub fn hold(&mut self, place: Place, slot: Option<Slot>) {
        self.held = Some((place, slot));
    }

    /// The request asks for usage where the client did not: that an arm refuses this is not its fault.
    pub const fn asks_usage(&mut self) {
        self.asks_usage = true;
    }

    /// The connection is there and the request leaves now.
    pub fn sent(&mut self, conn_reused: bool, now: Instant) {
        self.sent_at = now;
        self.sample.conn_reused = conn_reused;
    }

    /// The answer's head is there.
    pub fn head(&mut self, status: u16, headers: &HeaderMap) {
        self.sample.status = status;
        let (mut id, mut relay_id, mut cost) = (None, None, None);
        // One look at each name costs less than looking each of these up.
        for (name, value) in headers {
            match name.as_str() {
                "x-request-id" => _ = id.get_or_insert(value),
                "request-id" => _ = relay_id.get_or_insert(value),
                llm::REPORTED_COST_HEADER => _ = cost.get_or_insert(value),
                _ => {}
            }
        }
        self.sample.upstream_request_id = id
            .or(relay_id)
            .and_then(|id| id.to_str().ok())
            .map(|id| sample::clipped(id, Sample::REQUEST_ID_MAX_BYTES));
        let cost = cost.and_then(|cost| cost.to_str().ok());
        self.sample.reported_cost_usd = cost.and_then(llm::reported_cost);
    }

    /// Reads the body as a stream of events from here on.
    pub fn watch_stream(&mut self, dialect: Dialect) {
        self.watch = Watch::Stream(Box::new(match self.learner {
            Some(_) => StreamWatch::learning(dialect),
            None => StreamWatch::new(dialect),
        }));
    }

    /// Reads the body as a stream of events only to learn from it: its tokens were counted when they were
    /// asked for.
    pub fn watch_ids(&mut self, dialect: Dialect) {
        self.watch_stream(dialect);
        self.is_replay = true;
    }

    /// Reads the body of an answer that is not measured, only to learn from it.
    pub fn watch_object(&mut self) {
        self.watch = Watch::Whole(Whole::object());
    }

    /// Reads the body as one answer, to be judged at its end.
    pub fn watch_plain(&mut self, dialect: Dialect, content_type: Option<&str>) {
        self.watch = Watch::Whole(Whole::answer(dialect, content_type));
    }

    /// Reads the body of an error answer, to say at its end whose fault it was.
    pub fn watch_error(&mut self, dialect: Option<Dialect>) {
        self.watch = Watch::Whole(Whole::error(dialect));
    }

    /// The outcome is known from the head: the body only passes.
    pub fn watch_nothing(&mut self, outcome: Outcome) {
        self.watch = Watch::Blind(outcome);
    }

    /// A chunk of the body goes by.
    pub fn chunk(&mut self, chunk: &Bytes) {
        match &mut self.watch {
            Watch::Blind(_) => {}
            Watch::Tail(tail) => tail.feed(chunk),
            Watch::Stream(stream) => {
                stream.feed(chunk);
                if let Some(learner) = &self.learner {
                    learner.learn(&stream.take_ids(), &self.worker.samples);
                }
                // What nobody waited for is no time to a first token.
                let is_awaited = self.left_us.is_none();
                if is_awaited && self.sample.ttft_us.is_none() && stream.has_content() {
                    self.sample.ttft_us = Some(micros(self.sent_at, Instant::now()));
                    if let Some(ticket) = self.ticket.take() {
                        ticket.alive();
                    }
                }
            }
            Watch::Whole(whole) => {
                if !whole.feed(chunk) {
                    if let Some(learner) = &self.learner {
                        learner.learn(&whole.first_ids(chunk), &self.worker.samples);
                    }
                    // Too large to read: judged by its status alone, but for what its end says.
                    let outcome = whole.by_status(self.sample.status, self.key_injected);
                    self.watch = Watch::Tail(whole.tail(outcome, chunk));
                }
            }
        }
    }

    /// The body ended as HTTP wants it. Leaves the sample and tells the outcome.
    pub fn end(&mut self, now: Instant) -> Outcome {
        let outcome = match &mut self.watch {
            Watch::Blind(outcome) => {
                self.sample.complete = true;
                *outcome
            }
            Watch::Tail(tail) => {
                let (usage, cost) = tail.usage();
                self.sample.usage = usage;
                self.sample.reported_cost_usd = cost.or(self.sample.reported_cost_usd);
                self.sample.complete = true;
                tail.outcome
            }
            Watch::Stream(stream) => {
                let outcome = stream.finish(true);
                if let Some(learner) = &self.learner {
                    learner.learn(&stream.take_ids(), &self.worker.samples);
                }
                self.sample.usage = stream.usage();
                self.sample.reported_cost_usd = stream.reported_cost_usd();
                self.sample.complete = outcome == Outcome::Ok;
                outcome
            }
            Watch::Whole(whole) => {
                let (status, body) = (self.sample.status, whole.body());
                let facts = whole.judge(&body, status, self.key_injected);
                if let Some(learner) = &self.learner {
                    learner.learn(&whole.ids(&body), &self.worker.samples);
                }
                self.sample.usage = facts.usage;
                // What the body says is nearer to the bill than a header of something in front of it.
                let in_header = self.sample.reported_cost_usd;
                self.sample.reported_cost_usd = facts.reported_cost_usd.or(in_header);
                self.sample.complete = true;
                let may_refuse = self.asks_usage && matches!(status, 400 | 422);
                if may_refuse && llm::names_usage_option(&body) {
                    return self.usage_refused(facts.outcome);
                }
                facts.outcome
            }
        };
        let outcome = self.blamed(outcome);
        self.report(outcome, now);
        outcome
    }

    /// The arm refused what the client did not ask for. The attempt is nobody's, and not the live one that
    /// was counted: that is the next one, without the question.
    pub fn usage_refused(&mut self, answered: Outcome) -> Outcome {
        self.tell_breaker(answered);
        self.sample.role = Role::Retry;
        self.report(Outcome::Internal, Instant::now());
        Outcome::Internal
    }

    /// The dialects judge as if cutover's own key had been sent.
    fn blamed(&self, outcome: Outcome) -> Outcome {
        if self.key_injected {
            outcome
        } else {
            llm::with_clients_own_key(outcome)
        }
    }

    /// The body broke off, which `outcome` says how. Leaves the sample and tells the outcome: a stream whose
    /// last word had gone by is whole all the same, and an error that it announced is why it broke.
    pub fn broke(&mut self, outcome: Outcome) -> Outcome {
        let has_content = self.has_content();
        let outcome = match &mut self.watch {
            Watch::Stream(stream) if has_content => match stream.finish(false) {
                Outcome::Reset => outcome,
                known => known,
            },
            _ => outcome,
        };
        let outcome = self.blamed(outcome);
        self.sample.complete = outcome == Outcome::Ok;
        self.fail(outcome);
        outcome
    }

    /// The attempt broke. Leaves the sample.
    pub fn fail(&mut self, outcome: Outcome) {
        if self.reported {
            return;
        }
        if let Watch::Stream(stream) = &self.watch {
            self.sample.usage = stream.usage();
            self.sample.reported_cost_usd = stream.reported_cost_usd();
            // Whoever leaves after the last counts leaves a whole answer behind, of known cost.
            self.sample.complete |= stream.has_final_counts();
        }
        self.report(outcome, Instant::now());
    }

    /// The breaker hears of this attempt's end from somebody else, unless it is its probe.
    pub fn spare_breaker(&mut self) {
        self.ticket = self.ticket.take().filter(|ticket| ticket.is_probe);
    }

    fn tell_breaker(&mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            ticket.ended(outcome);
        }
    }

    /// Microseconds from the sending to `now`.
    fn elapsed_us(&self, now: Instant) -> u64 {
        micros(self.sent_at, now)
    }

    fn report(&mut self, outcome: Outcome, now: Instant) {
        if self.reported {
            return;
        }
        self.reported = true;
        self.held = None;
        self.tell_breaker(outcome);
        let (outcome, latency_us) = match self.left_us {
            Some(left_us) => (Outcome::ClientGone, left_us),
            None => (outcome, self.elapsed_us(now)),
        };
        if self.is_replay {
            self.sample.usage = None;
            self.sample.reported_cost_usd = None;
        }
        let sample = Sample {
            outcome,
            latency_us,
            model: self.sample.model.take(),
            upstream_request_id: self.sample.upstream_request_id.take(),
            tag: self.sample.tag.take(),
            ..self.sample.clone()
        };
        if let Some(span) = self.span.take() {
            let late_us = self.elapsed_us(now).saturating_sub(latency_us);
            span.ended(sample.clone(), late_us);
        }
        self.worker.samples.record(sample);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // Nobody ended it, so the client went away: hyper drops what it was answering with. During
        // shutdown it is cutover that cuts.
        let draining = self.worker.draining.get();
        self.fail(if draining {
            Outcome::Internal
        } else {
            Outcome::ClientGone
        });
    }
}

fn micros(start: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(start).as_micros()).unwrap_or(u64::MAX)
}
