//! The thread that asks the daemon: each second what is new, and at once what a person orders.
//!
//! It never waits for the screen, and the screen never waits for it. It also sees to it that the process
//! ends when it should: reading from a terminal that is gone may never return, so the screen cannot.

use std::io::{self, IsTerminal as _};
use std::process;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc as orders, watch};

use super::order::Order;
use super::screen::{Answer, End};
use crate::cli::Failure;
use crate::cli::client::{self, AdminClient, Asked};
use crate::cli::fields::{array, count, encoded};
use crate::cli::follow;
use crate::cli::harmless;

/// A look that takes longer counts as no answer.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// A command may wait for a commit.
const ORDER_WITHIN: Duration = Duration::from_secs(15);
/// Decisions that the screen can scroll through.
const DECISIONS: u32 = 100;
/// How often the terminal is looked at: not every way to lose it comes with a signal.
const TERMINAL_EVERY: Duration = Duration::from_secs(1);
/// The screen ends by itself within a turn, unless it is stuck in its terminal.
const END_WITHIN: Duration = Duration::from_millis(500);
/// Giving back a terminal that takes nothing must not keep the process either.
const RESTORE_WITHIN: Duration = Duration::from_millis(200);

/// What the screen is told. All texts in it are harmless.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// The present status.
    Status(Value),
    /// The latest decisions of the rollout of this name, newest first.
    Decisions(String, Vec<Value>),
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
    shown: watch::Sender<Option<String>>,
}

impl Feed {
    /// Starts the thread. It ends with the process, which it ends itself if a signal asks for it and the
    /// screen does not; `restore` gives the terminal back then.
    pub(super) fn start(client: AdminClient, restore: fn()) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let (tell, news) = mpsc::channel();
        let (order, taken) = orders::unbounded_channel();
        let look = Arc::new(Notify::new());
        let (show, shown) = watch::channel(None);
        let asker = Asker {
            client: Arc::new(client),
            tell,
            look: Arc::clone(&look),
            shown,
            newest: None,
            was_heard: false,
        };
        thread::spawn(move || {
            runtime.block_on(async move {
                await_the_end(&asker.tell, restore);
                asker.run(taken).await;
            });
        });
        Ok(Self {
            news,
            orders: order,
            look,
            shown: show,
        })
    }

    /// Asks at once.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// Whose decisions are wanted.
    pub(super) fn show(&self, rollout: Option<&str>) {
        self.shown.send_if_modified(|shown| {
            let is_new = shown.as_deref() != rollout;
            if is_new {
                *shown = rollout.map(str::to_owned);
            }
            is_new
        });
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
    shown: watch::Receiver<Option<String>>,
    /// The rollout whose decisions the screen has, and the id of the newest of them.
    newest: Option<(String, u64)>,
    was_heard: bool,
}

impl Asker {
    async fn run(mut self, mut orders: orders::UnboundedReceiver<Order>) {
        let mut ticks = tokio::time::interval(follow::EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.carry(order),
                    None => return,
                },
                () = self.look.notified() => self.tell_all().await,
                Ok(()) = self.shown.changed() => self.tell_all().await,
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
            news.push(decisions);
        }
        Ok(news)
    }

    /// The latest decisions of the rollout that is shown if there is a new one. Most seconds bring none: one
    /// row says so.
    async fn new_decisions(&mut self) -> Result<Option<News>, Asked> {
        let Some(rollout) = self.shown.borrow_and_update().clone() else {
            return Ok(None);
        };
        let path = format!("/api/v1/decisions?rollout={}", encoded(&rollout));
        let latest = self.get(&format!("{path}&limit=1")).await?;
        let newest = array(&latest, "/decisions").first();
        let newest = Some((rollout.clone(), newest.map_or(0, |row| count(row, "/id"))));
        if newest == self.newest {
            return Ok(None);
        }
        let all = self.get(&format!("{path}&limit={DECISIONS}")).await?;
        self.newest = newest;
        let all = array(&all, "/decisions").to_vec();
        Ok(Some(News::Decisions(rollout, all)))
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

/// Ends the process when a signal asks for it, or when the terminal is gone.
fn await_the_end(tell: &mpsc::Sender<News>, restore: fn()) {
    let ends = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    for kind in ends {
        let tell = tell.clone();
        tokio::spawn(async move {
            if let Ok(mut ends) = signal(kind) {
                ends.recv().await;
                end(&tell, kind, restore).await;
            }
        });
    }
    let tell = tell.clone();
    tokio::spawn(async move {
        // After a hang-up no question about it is answered any more.
        while io::stdin().is_terminal() && io::stdout().is_terminal() {
            tokio::time::sleep(TERMINAL_EVERY).await;
        }
        end(&tell, SignalKind::hangup(), restore).await;
    });
}

/// Asks the screen to end, and ends the process if it does not.
async fn end(tell: &mpsc::Sender<News>, why: SignalKind, restore: fn()) {
    drop(tell.send(News::End));
    tokio::time::sleep(END_WITHIN).await;
    let (restored, is_restored) = mpsc::channel();
    thread::spawn(move || {
        restore();
        restored.send(()).ok();
    });
    is_restored.recv_timeout(RESTORE_WITHIN).ok();
    // As a shell says of a process that a signal ended.
    process::exit(128 + why.as_raw_value());
}

fn said(done: &Value) -> String {
    let message = done.get("message").and_then(Value::as_str);
    message.unwrap_or("done").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::watch::order::Action;
    use crate::cli::{AdminArgs, ConfigArg};

    /// The status and body for a path.
    type Answering = fn(&str) -> (u16, Value);

    /// A daemon with these answers, and what it was asked for.
    async fn asker(
        answer: Answering,
        rollout: Option<&str>,
    ) -> (Asker, mpsc::Receiver<News>, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4_096];
                let size = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..size]).into_owned();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let (status, body) = answer(&path);
                kept.lock().unwrap().push(path);
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        let args = AdminArgs {
            config: ConfigArg {
                config: "none.toml".into(),
            },
            admin: Some(addr),
            json: false,
        };
        let (tell, news) = mpsc::channel();
        let (_, shown) = watch::channel(rollout.map(str::to_owned));
        let asker = Asker {
            client: Arc::new(AdminClient::new(&args).ok().unwrap()),
            tell,
            look: Arc::default(),
            shown,
            newest: None,
            was_heard: false,
        };
        (asker, news, asked)
    }

    #[tokio::test]
    async fn decisions_are_those_of_the_rollout_that_is_shown() {
        let answer = |_: &str| (200, json!({"decisions": [{"id": 7}]}));
        let (mut asker, _, asked) = asker(answer, Some("a&b")).await;
        let news = asker.looked().await.unwrap();
        assert!(
            matches!(&news[..], [News::Status(_), News::Decisions(of, rows)]
                if of == "a&b" && rows.len() == 1),
            "{news:?}"
        );
        assert_eq!(asker.looked().await.unwrap().len(), 1, "nothing new");
        let decisions = "/api/v1/decisions?rollout=a%26b&limit=";
        let expected = [
            "/api/v1/status".to_owned(),
            format!("{decisions}1"),
            format!("{decisions}100"),
            "/api/v1/status".to_owned(),
            format!("{decisions}1"),
        ];
        assert_eq!(*asked.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn an_order_without_an_answer_is_no_refused_one() {
        let answers: [(Answering, End); 2] = [
            (|_| (503, json!({"error": {"message": "no"}})), End::Refused),
            (|_| (504, json!({"error": {"message": "no"}})), End::Unknown),
        ];
        for (answer, expected) in answers {
            let (asker, news, _) = asker(answer, None).await;
            asker.carry(Order {
                action: Action::Promote,
                rollout: "search".to_owned(),
                weight: None,
                reason: String::new(),
            });
            asker.look.notified().await;
            let answered = news.try_recv().unwrap();
            assert!(
                matches!(&answered, News::Answered(answer) if answer.end == expected),
                "{answered:?}"
            );
        }
    }
}
