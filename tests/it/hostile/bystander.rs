//! A well-behaved client beside an attack.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::client::{Client, End};
use crate::harness::{CHAT, ask, exchange};

/// An answer takes some milliseconds; a busy machine may make it a hundred times as many.
const GREAT_DELAY: Duration = Duration::from_secs(10);

/// Asks over one connection, and over a new one every tenth time, until it is told to stop.
#[derive(Debug)]
pub(super) struct Bystander {
    stopped: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: JoinHandle<Duration>,
}

impl Bystander {
    /// Everything but a whole 200 ends it.
    pub(super) fn start(port: u16) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(keep_asking(
            port,
            Arc::clone(&stopped),
            Arc::clone(&answered),
        ));
        Self {
            stopped,
            answered,
            task,
        }
    }

    /// Ends; fails if it ever saw an error or had to wait for long. What it waited for at most is printed.
    #[expect(clippy::wrong_self_convention, reason = "it ends by being looked at")]
    pub(super) async fn is_well(self, attack: &str) {
        self.stopped.store(true, Ordering::SeqCst);
        let longest = self.task.await.expect("the bystander saw an error");
        let answered = self.answered.load(Ordering::SeqCst);
        println!("{attack}: {answered} answers beside it, the slowest after {longest:?}");
        assert!(answered > 0, "{attack}");
        assert!(longest < GREAT_DELAY, "{attack}: {longest:?}");
    }
}

async fn keep_asking(port: u16, stopped: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Duration {
    let mut longest = Duration::ZERO;
    let mut client: Option<Client> = None;
    let mut asked = 0;
    loop {
        let began = Instant::now();
        let client = match &mut client {
            Some(client) if asked % 10 != 0 => client,
            slot => slot.insert(Client::connect(port).await.unwrap()),
        };
        let body = ask("ok", asked % 2 == 0);
        let answer = exchange(client, CHAT, &[], &body).await;
        assert_eq!((answer.head.status, answer.end), (200, End::Clean));
        longest = longest.max(began.elapsed());
        asked += 1;
        answered.fetch_add(1, Ordering::SeqCst);
        if stopped.load(Ordering::SeqCst) {
            return longest;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
