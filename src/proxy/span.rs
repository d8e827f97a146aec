//! A request's span while it grows: begun with its head, filled by the end of each attempt, and handed over
//! when the last who holds it lets go.
//!
//! Only requests that are traced have one. It never waits, and what it holds of a request is what a sample
//! holds.

use std::cell::RefCell;
use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Request};
use rand::RngExt;
use tokio::time::Instant;

use super::plane::{Worker, WorkerPlane};
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::llm::Dialect;
use crate::sample::Sample;
use crate::trace::context::{TRACEPARENT, TRACESTATE, trace_state};
use crate::trace::{Attempt, Context, Parent, Span};

/// The span of a request that is under way.
#[derive(Debug)]
pub struct OpenSpan {
    worker: Rc<Worker>,
    plane: Rc<WorkerPlane>,
    /// What the arms are told.
    header: Option<HeaderValue>,
    began: Instant,
    span: RefCell<Span>,
}

impl OpenSpan {
    /// Begins the span of a request, if it is to have one: if the client's trace is recorded, or if it has
    /// none that is valid and the draw falls into the configured share.
    pub fn begin<B>(
        worker: &Rc<Worker>,
        plane: &Rc<WorkerPlane>,
        request: &Request<B>,
        dialect: Option<Dialect>,
    ) -> Option<Rc<Self>> {
        let traces = &plane.config.traces;
        traces.endpoint.as_ref()?;
        let parent = Parent::read(request.headers());
        let is_sampled = match parent {
            Some(parent) => parent.is_sampled(),
            None => {
                worker.rng.borrow_mut().random_range(0..Weight::FULL.bps()) < traces.share.bps()
            }
        };
        if !is_sampled {
            return None;
        }
        let context = Context::new(parent, worker.rng.borrow_mut().random());
        let trace_state = parent.and_then(|_| trace_state(request.headers()));
        Some(Rc::new(Self {
            worker: Rc::clone(worker),
            plane: Rc::clone(plane),
            header: context.header(),
            began: Instant::now(),
            span: RefCell::new(Span {
                context,
                trace_state,
                started_at: UnixMillis::now(),
                method: request.method().clone(),
                dialect,
                rollout: None,
                attempts: Vec::new(),
            }),
        }))
    }

    /// Makes the request's span the parent of what the arm does.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let Some(header) = &self.header else { return };
        headers.insert(TRACEPARENT, header.clone());
        if self.span.borrow().context.parent_id.is_none() {
            // It belonged to a trace that could not be read.
            headers.remove(TRACESTATE);
        }
    }

    /// An attempt is over; `late_us` ago, if its end is told later.
    pub fn ended(&self, sample: Sample, late_us: u64) {
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut span = self.span.borrow_mut();
        if let Some(place) = sample.rollout {
            let rollout = self.plane.config.rollouts.get(usize::from(place));
            span.rollout = rollout.map(|rollout| rollout.name.as_str().into());
        }
        let arm = self.plane.config.arms.get(sample.arm);
        span.attempts.push(Attempt {
            sample,
            ended_us: now_us.saturating_sub(late_us),
            server: arm.base_url.authority.as_str().into(),
        });
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let span = self.span.get_mut();
        if !span.attempts.is_empty() {
            let attempts = std::mem::take(&mut span.attempts);
            self.worker.spans.record(Span {
                attempts,
                ..span.clone()
            });
        }
    }
}
