//! The thread that asks the daemon: each second what is new, and at once what a person orders.
//!
//! It never waits for the screen, and the screen never waits for it.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc as orders};

use super::order::Order;
use super::screen::{Answer, End};
use crate::cli::Failure;
use crate::cli::client::{self, AdminClient, Asked};
use crate::cli::fields::{array, count};
use crate::cli::follow;
use crate::cli::harmless;

/// A look that takes longer counts as no answer.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// A command may wait for a commit.
const ORDER_WITHIN: Duration = Duration::from_secs(15);
/// Decisions that the screen can scroll through.
const DECISIONS: u32 = 100;

/// What the screen is told. All texts in it are harmless.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// The present status.
    Status(Value),
    /// The latest decisions, newest first.
    Decisions(Vec<Value>),
    /// The daemon does not answer.
    Lost(String),
    /// What became of an order.
    Answered(Answer),
    /// A signal asks to end.
    End,
}

/// The screen's end of the thread.
#[derive(Debug)]
pub(super) struct Feed {
    /// What there is to tell.
    pub(super) news: mpsc::Receiver<News>,
    orders: orders::UnboundedSender<Order>,
    look: Arc<Notify>,
}

impl Feed {
    /// Starts the thread. It ends with the process.
    pub(super) fn start(client: AdminClient) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let (tell, news) = mpsc::channel();
        let (order, taken) = orders::unbounded_channel();
        let look = Arc::new(Notify::new());
        let asker = Asker {
            client: Arc::new(client),
            tell,
            look: Arc::clone(&look),
            newest: None,
            was_heard: false,
        };
        thread::spawn(move || runtime.block_on(asker.run(taken)));
        Ok(Self {
            news,
            orders: order,
            look,
        })
    }

    /// Asks at once.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// Sends an order; its answer comes as news.
    pub(super) fn send(&self, order: Order) {
        // Without the thread the news end too, and with them the screen.
        drop(self.orders.send(order));
    }
}

struct Asker {
    client: Arc<AdminClient>,
    tell: mpsc::Sender<News>,
    look: Arc<Notify>,
    /// The id of the newest decision that the screen has.
    newest: Option<u64>,
    was_heard: bool,
}

impl Asker {
    async fn run(mut self, mut orders: orders::UnboundedReceiver<Order>) {
        let ends = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        for kind in ends {
            let tell = self.tell.clone();
            tokio::spawn(async move {
                if let Ok(mut ends) = signal(kind) {
                    ends.recv().await;
                    drop(tell.send(News::End));
                }
            });
        }
        let mut ticks = tokio::time::interval(follow::EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.carry(order),
                    None => return,
                },
                () = self.look.notified() => self.tell_all().await,
                _ = ticks.tick() => self.tell_all().await,
            }
        }
    }

    async fn tell_all(&mut self) {
        let news = match self.looked().await {
            Ok(news) => news,
            Err(asked) => {
                let why = asked.failure();
                // Once somebody answered, the address is right.
                let why = match self.was_heard {
                    true => why.message().trim_end_matches(client::HINT),
                    false => why.message(),
                };
                vec![News::Lost(harmless::line(why))]
            }
        };
        for news in news {
            drop(self.tell.send(news));
        }
    }

    async fn looked(&mut self) -> Result<Vec<News>, Asked> {
        let status = self.get("/api/v1/status").await?;
        self.was_heard = true;
        let mut news = vec![News::Status(status)];
        // Without a store there are no decisions to read, and the status tells why.
        if let Ok(Some(decisions)) = self.new_decisions().await {
            news.push(News::Decisions(decisions));
        }
        Ok(news)
    }

    /// The latest decisions if there is a new one. Most seconds bring none: one row says so.
    async fn new_decisions(&mut self) -> Result<Option<Vec<Value>>, Asked> {
        let latest = self.get("/api/v1/decisions?limit=1").await?;
        let newest = array(&latest, "/decisions").first();
        let newest = Some(newest.map_or(0, |row| count(row, "/id")));
        if newest == self.newest {
            return Ok(None);
        }
        let all = format!("/api/v1/decisions?limit={DECISIONS}");
        let all = self.get(&all).await?;
        self.newest = newest;
        Ok(Some(array(&all, "/decisions").to_vec()))
    }

    async fn get(&self, path: &str) -> Result<Value, Asked> {
        let asked = self
            .client
            .asked_within(LOOK_WITHIN, &Method::GET, path, None);
        asked.await.map(harmless::answer)
    }

    /// On a task of its own: an answer may take long, and the picture must not stand still meanwhile.
    fn carry(&self, order: Order) {
        let client = Arc::clone(&self.client);
        let (tell, look) = (self.tell.clone(), Arc::clone(&self.look));
        tokio::spawn(async move {
            let (method, path, body) = order.request();
            let asked = client.asked_within(ORDER_WITHIN, &method, &path, Some(&body));
            let (end, text) = match asked.await {
                Ok(done) => (End::Done, said(&done)),
                Err(asked) => match asked.failure() {
                    Failure::Refused(text) => (End::Refused, text),
                    failure => {
                        let text = failure.message().trim_end_matches(client::HINT);
                        (End::Unknown, text.to_owned())
                    }
                },
            };
            let text = harmless::line(&text);
            drop(tell.send(News::Answered(Answer { end, text })));
            look.notify_one();
        });
    }
}

fn said(done: &Value) -> String {
    let message = done.get("message").and_then(Value::as_str);
    message.unwrap_or("done").to_owned()
}
