//! `GET /api/v1/events`: status and decisions as they come, as server-sent events.
//!
//! One feeder serves all viewers. It asks the driver and the store only while somebody looks, and it waits
//! for no viewer: whoever does not take events in time is hung up on, and resumes by `Last-Event-ID`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use super::query::Query;
use super::{Admin, Answer, Content, api, error, with_type};
use crate::driver::status::Status;
use crate::store::StoreError;

/// Viewers at most, out of all connections.
const MAX_VIEWERS: usize = 32;
/// Events that a viewer may lag behind.
const FRAMES: usize = 32;
/// Decisions in one frame; who has more to catch up with gets them one frame per turn.
const DECISIONS: u32 = 200;
const TURN: Duration = Duration::from_secs(1);
/// One feeder serves all: a disk that hangs must not keep the status from them.
const STORE_WITHIN: Duration = Duration::from_millis(500);
/// Proxies on the way close what is silent for longer, and a status is never older than this.
const AT_LEAST_EVERY: Duration = Duration::from_secs(15);

/// The way to the feeder.
#[derive(Debug)]
pub(super) struct Feed {
    join: mpsc::Sender<Viewer>,
    places: Arc<Semaphore>,
}

/// One open stream, as the feeder sees it.
#[derive(Debug)]
struct Viewer {
    frames: mpsc::Sender<Bytes>,
    /// The latest decision that it knows; `None` until that can be read: it wants only new ones.
    knows: Option<i64>,
    /// Ends its connection, which may be stuck.
    hang_up: Arc<Notify>,
}

/// The stream as hyper sees it.
#[derive(Debug)]
struct Events {
    frames: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.frames.poll_recv(context);
        frame.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// `GET /api/v1/events`
pub(super) fn events(
    feed: &Feed,
    query: Option<&str>,
    headers: &HeaderMap,
    hang_up: &Arc<Notify>,
) -> Answer {
    let last_id = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok()?;
        id.parse::<i64>().ok()
    });
    let wrong = match (Query::parse(query, &[]), last_id) {
        (Err(wrong), _) => Some(wrong),
        (Ok(_), Some(None)) => Some("Last-Event-ID is a decision's id".to_owned()),
        (Ok(_), _) => None,
    };
    if let Some(wrong) = wrong {
        return error(StatusCode::BAD_REQUEST, &wrong);
    }
    let Ok(place) = Arc::clone(&feed.places).try_acquire_owned() else {
        let full = format!("{MAX_VIEWERS} viewers are here already; close one of them");
        return error(StatusCode::SERVICE_UNAVAILABLE, &full);
    };
    let (sender, frames) = mpsc::channel(FRAMES);
    let viewer = Viewer {
        frames: sender,
        knows: last_id.flatten(),
        hang_up: Arc::clone(hang_up),
    };
    if feed.join.try_send(viewer).is_err() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "there are no events now");
    }
    let body: Content = Events {
        frames,
        _place: place,
    }
    .boxed();
    let mut answer = with_type(StatusCode::OK, "text/event-stream", body);
    // Some proxies collect an answer before they pass it on.
    answer
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// Starts the feeder. It ends with the driver, or when nobody can join any more.
pub(super) fn start(admin: Admin) -> Feed {
    let (join, joining) = mpsc::channel(MAX_VIEWERS);
    let feeder = Feeder {
        admin,
        viewers: Viewers::default(),
        told: Vec::new(),
        told_at: Instant::now(),
        beat_at: Instant::now(),
        store: Patience::default(),
    };
    tokio::spawn(feeder.run(joining));
    Feed {
        join,
        places: Arc::new(Semaphore::new(MAX_VIEWERS)),
    }
}

#[derive(Debug)]
struct Feeder {
    admin: Admin,
    viewers: Viewers,
    /// The status that all viewers have seen, without its uptime.
    told: Vec<u8>,
    told_at: Instant,
    beat_at: Instant,
    store: Patience,
}

/// Asks the store, and after a question that it did not answer in time nothing before the next turn.
#[derive(Debug, Default)]
struct Patience {
    rests_until: Option<Instant>,
}

impl Patience {
    /// The answer, if it comes in time.
    async fn ask<T>(&mut self, question: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        self.rests_until = None;
        if let Ok(answer) = tokio::time::timeout(STORE_WITHIN, question).await {
            return answer.ok();
        }
        self.rests_until = Some(Instant::now() + TURN / 2);
        None
    }
}

impl Feeder {
    async fn run(mut self, mut joining: mpsc::Receiver<Viewer>) {
        let mut tick = tokio::time::interval(TURN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                viewer = joining.recv() => match viewer {
                    Some(viewer) => self.welcome(viewer).await,
                    None => break,
                },
                _ = tick.tick(), if !self.viewers.0.is_empty() => self.turn().await,
                () = self.admin.driver.closed() => break,
            }
        }
    }

    /// Sends a new viewer the status before the store is asked, and then the first of what it has missed.
    async fn welcome(&mut self, viewer: Viewer) {
        let mut first = b"retry: 2000\n\n".to_vec();
        if let Some(status) = api::live_status(&self.admin).await {
            first.extend(status_event(&status));
        }
        let is_there = viewer.takes(&Bytes::from(first));
        if !is_there {
            return;
        }
        self.viewers.0.push(viewer);
        if let Some(newest) = self.newest_decision().await {
            self.viewers.begin_at(newest);
        }
        self.tell_decisions().await;
    }

    /// What comes once a second.
    async fn turn(&mut self) {
        self.viewers.forget_gone();
        if self.viewers.0.is_empty() {
            return;
        }
        let now = Instant::now();
        if let Some(mut status) = api::live_status(&self.admin).await {
            let event = status_event(&status);
            status.uptime_s = 0;
            let told = serde_json::to_vec(&status).unwrap_or_default();
            if told != self.told || now.duration_since(self.told_at) >= AT_LEAST_EVERY {
                self.told = told;
                self.told_at = now;
                self.viewers.send(&Bytes::from(event));
            }
        }
        self.tell_decisions().await;
        if now.duration_since(self.beat_at) >= AT_LEAST_EVERY {
            self.beat_at = now;
            self.viewers.send(&Bytes::from_static(b": still here\n\n"));
        }
    }

    async fn newest_decision(&mut self) -> Option<i64> {
        let newest = self.admin.store.decisions(None, 1, None);
        let newest = self.store.ask(newest).await?;
        Some(newest.first().map_or(0, |decision| decision.id))
    }

    /// Sends each viewer the decisions that it does not know. Without the store they wait.
    async fn tell_decisions(&mut self) {
        if self.viewers.0.iter().any(|viewer| viewer.knows.is_none()) {
            let Some(newest) = self.newest_decision().await else {
                return;
            };
            self.viewers.begin_at(newest);
        }
        // Most know the same.
        for known in self.viewers.known() {
            let decisions = self.admin.store.decisions_after(known, DECISIONS);
            let Some(decisions) = self.store.ask(decisions).await else {
                return;
            };
            if let Some(last) = decisions.last() {
                let events: Vec<u8> = decisions
                    .iter()
                    .flat_map(|decision| event("decision", Some(decision.id), decision))
                    .collect();
                self.viewers
                    .send_to_those_at(known, last.id, &Bytes::from(events));
            }
        }
    }
}

/// All open streams.
#[derive(Debug, Default)]
struct Viewers(Vec<Viewer>);

impl Viewers {
    fn forget_gone(&mut self) {
        self.0.retain(|viewer| !viewer.frames.is_closed());
    }

    fn send(&mut self, frame: &Bytes) {
        self.0.retain(|viewer| viewer.takes(frame));
    }

    /// Who knows nothing yet wants what comes after this decision. Who knows a later one knew another
    /// database, whose numbers say nothing here: all decisions are new to it.
    fn begin_at(&mut self, newest: i64) {
        for viewer in &mut self.0 {
            viewer.knows = match viewer.knows {
                Some(known) if known > newest => Some(0),
                Some(known) => Some(known),
                None => Some(newest),
            };
        }
    }

    /// The decisions that viewers know, each once.
    fn known(&self) -> Vec<i64> {
        let mut known: Vec<i64> = self.0.iter().filter_map(|viewer| viewer.knows).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Sends decisions up to `now_known` to those who know those up to `known`.
    fn send_to_those_at(&mut self, known: i64, now_known: i64, frame: &Bytes) {
        self.0.retain_mut(|viewer| {
            if viewer.knows != Some(known) {
                return true;
            }
            viewer.knows = Some(now_known);
            viewer.takes(frame)
        });
    }
}

impl Viewer {
    /// Hands a frame over; false if the viewer is gone or has fallen behind.
    fn takes(&self, frame: &Bytes) -> bool {
        match self.frames.try_send(frame.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::debug!("a viewer of events does not keep up and is hung up on");
                self.hang_up.notify_one();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

fn status_event(status: &Status) -> Vec<u8> {
    event("status", None, status)
}

/// One event. JSON has no line breaks of its own.
fn event(kind: &str, id: Option<i64>, data: &impl serde::Serialize) -> Vec<u8> {
    let Ok(data) = serde_json::to_string(data) else {
        return Vec::new();
    };
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {kind}\ndata: {data}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(knows: i64) -> (Viewer, mpsc::Receiver<Bytes>) {
        let (frames, taken) = mpsc::channel(FRAMES);
        let viewer = Viewer {
            frames,
            knows: Some(knows),
            hang_up: Arc::default(),
        };
        (viewer, taken)
    }

    #[tokio::test]
    async fn a_viewer_that_does_not_keep_up_is_hung_up_on_and_others_are_not() {
        let (slow, _slow_end) = viewer(0);
        let (quick, mut taken) = viewer(0);
        let hung_up = Arc::clone(&slow.hang_up);
        let mut viewers = Viewers(vec![slow, quick]);
        for _ in 0..FRAMES {
            viewers.send(&Bytes::from_static(b"x"));
            taken.recv().await.unwrap();
        }
        assert_eq!(viewers.0.len(), 2);
        viewers.send(&Bytes::from_static(b"x"));
        assert_eq!(viewers.0.len(), 1);
        hung_up.notified().await;
        drop(taken);
        viewers.forget_gone();
        assert!(viewers.0.is_empty());
    }

    #[test]
    fn each_viewer_gets_the_decisions_that_it_does_not_know() {
        let (behind, mut behind_taken) = viewer(3);
        let (abreast, mut abreast_taken) = viewer(7);
        let mut viewers = Viewers(vec![behind, abreast]);
        assert_eq!(viewers.known(), [3, 7]);
        viewers.send_to_those_at(3, 7, &Bytes::from_static(b"4 to 7"));
        assert_eq!(viewers.known(), [7]);
        assert_eq!(behind_taken.try_recv().unwrap(), "4 to 7");
        assert!(abreast_taken.try_recv().is_err());
    }

    #[test]
    fn ids_of_another_database_are_forgotten() {
        let (before, _before_end) = viewer(4_711);
        let (abreast, _abreast_end) = viewer(7);
        let (new, _new_end) = viewer(0);
        let new = Viewer { knows: None, ..new };
        let mut viewers = Viewers(vec![before, abreast, new]);
        viewers.begin_at(9);
        let knows: Vec<_> = viewers.0.iter().map(|viewer| viewer.knows).collect();
        assert_eq!(knows, [Some(0), Some(7), Some(9)]);
    }

    #[tokio::test]
    async fn a_store_that_hangs_costs_half_a_second_a_turn() {
        let mut store = Patience::default();
        let began = Instant::now();
        for _ in 0..20 {
            let hangs = std::future::pending::<Result<i64, StoreError>>();
            assert_eq!(store.ask(hangs).await, None);
        }
        let took = began.elapsed();
        assert!(took >= STORE_WITHIN, "{took:?}");
        assert!(took < 10 * STORE_WITHIN, "only the first waits: {took:?}");
        tokio::time::sleep(TURN).await;
        assert_eq!(store.ask(async { Ok(7) }).await, Some(7));
    }

    #[test]
    fn an_event_is_three_lines_and_an_empty_one() {
        let text = event("decision", Some(7), &"two\nlines");
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "id: 7\nevent: decision\ndata: \"two\\nlines\"\n\n");
    }
}
