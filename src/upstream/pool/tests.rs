//! Shared connections against scripted peers, and addresses that change. Peers speak raw frames, so that they
//! can be as unkind as real ones.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::super::body::UploadBody;
use super::super::connection::SendError;
use super::super::socket::Socket;
use super::super::target::tests::{Says, Scripted, arm, direct};
use super::super::via::ProxyEnv;
use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// Frame types.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A scripted peer of one HTTP/2 connection.
struct Peer(TcpStream);

impl Peer {
    /// Takes the preface and answers it with these settings.
    async fn accept(listener: &TcpListener, settings: &[u8]) -> Self {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        tcp.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut peer = Self(tcp);
        peer.write(SETTINGS, 0, 0, settings).await;
        peer
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The stream of the next request; its head is not looked at.
    async fn request(&mut self) -> u32 {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut payload).await.unwrap();
            if head[3] == HEADERS {
                return u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            }
        }
    }

    /// `:status: 200`, and nothing more.
    async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, 0x5, stream, &[0x88]).await;
    }

    async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    async fn refuse(&mut self, stream: u32) {
        self.write(RST_STREAM, 0, stream, &7_u32.to_be_bytes())
            .await;
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pool_to(address: SocketAddr, http: &str) -> Rc<Pool> {
    let lines = format!("http = \"{http}\"");
    let target = Target::new(&arm(&format!("http://{address}"), &lines), &direct()).unwrap();
    Rc::new(Pool::new(target, Arc::default()))
}

fn get(path: &str) -> Request<UploadBody> {
    let mut request = Request::new(UploadBody::Kept(Bytes::new()));
    *request.uri_mut() = path.parse().unwrap();
    request
        .headers_mut()
        .insert("host", "provider".parse().unwrap());
    request
}

async fn acquire(pool: &Rc<Pool>) -> Connection {
    match pool.reuse(Instant::now()) {
        Some(connection) => connection,
        None => pool.open(LIMIT).await.unwrap(),
    }
}

#[tokio::test]
async fn many_requests_share_a_connection_and_more_than_a_hundred_open_another() {
    let (listener, address) = listen().await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let mut peer = Peer::accept(&listener, &[]).await;
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                loop {
                    let stream = peer.request().await;
                    peer.answer(stream).await;
                }
            });
        }
    });
    let all = async {
        let pool = pool_to(address, "2");
        // All of them at once, before there is any connection.
        let (places, mut taken) = mpsc::unbounded_channel();
        for _ in 0..250 {
            let (pool, places) = (Rc::clone(&pool), places.clone());
            tokio::task::spawn_local(async move {
                let connection = acquire(&pool).await;
                places.send(connection).unwrap();
            });
        }
        drop(places);
        let mut held = Vec::new();
        while let Some(connection) = taken.recv().await {
            assert!(!connection.is_reused());
            held.push(connection);
        }
        assert_eq!(held.len(), 250);
        let opened = accepted.load(Ordering::SeqCst);
        assert_eq!(opened, 3, "connections for 250 requests");
        for connection in &mut held {
            assert_eq!(connection.send(get("/a")).await.unwrap().status(), 200);
        }
        held.clear();
        let mut again = pool.reuse(Instant::now()).unwrap();
        assert!(again.is_reused());
        assert_eq!(again.send(get("/b")).await.unwrap().status(), 200);
        assert_eq!(accepted.load(Ordering::SeqCst), 3);
    };
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn a_peer_that_allows_few_requests_on_a_connection_gets_few() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        // SETTINGS_MAX_CONCURRENT_STREAMS = 2
        loop {
            let mut peer = Peer::accept(&listener, &[0, 3, 0, 0, 0, 2]).await;
            tokio::spawn(async move {
                loop {
                    let stream = peer.request().await;
                    peer.answer(stream).await;
                }
            });
        }
    });
    let all = async {
        let pool = pool_to(address, "2");
        // Its settings are there with its first answer.
        let mut first = acquire(&pool).await;
        assert_eq!(first.send(get("/a")).await.unwrap().status(), 200);
        let second = pool.reuse(Instant::now());
        assert!(second.is_some());
        assert!(pool.reuse(Instant::now()).is_none(), "two are allowed");
        drop(second);
        assert!(pool.reuse(Instant::now()).is_some());
    };
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn the_end_of_a_shared_connection_says_what_became_of_each_request() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        // The first one leaves in an orderly way, and does not look at the second request.
        let mut peer = Peer::accept(&listener, &[]).await;
        let (first, _second) = (peer.request().await, peer.request().await);
        peer.go_away(first).await;
        peer.answer(first).await;
        // The next refuses a request, then is gone under two of them.
        let mut peer = Peer::accept(&listener, &[]).await;
        let refused = peer.request().await;
        peer.refuse(refused).await;
        peer.request().await;
        peer.request().await;
        drop(peer);
        // The last one answers, and is gone under one that came alone.
        let mut peer = Peer::accept(&listener, &[]).await;
        let stream = peer.request().await;
        peer.answer(stream).await;
        peer.request().await;
    });
    let all = async {
        let pool = pool_to(address, "2");
        let (mut one, mut two) = (acquire(&pool).await, acquire(&pool).await);
        let (one, two) = tokio::join!(one.send(get("/1")), two.send(get("/2")));
        assert_eq!(one.unwrap().status(), 200);
        assert!(matches!(two, Err(SendError::Unprocessed)), "{two:?}");

        // The connection takes nothing more, and gives back what it was handed.
        let mut next = acquire(&pool).await;
        if next.is_reused() {
            let unsent = next.send(get("/3")).await;
            assert!(matches!(unsent, Err(SendError::Unsent(_))), "{unsent:?}");
            next = acquire(&pool).await;
        }
        assert!(!next.is_reused());
        let refused = next.send(get("/3")).await;
        assert!(
            matches!(refused, Err(SendError::Unprocessed)),
            "{refused:?}"
        );
        drop(next);
        let (mut one, mut two) = (acquire(&pool).await, acquire(&pool).await);
        assert!(one.is_reused() && two.is_reused());
        let (one, two) = tokio::join!(one.send(get("/4")), two.send(get("/5")));
        // The first was alone when it came; the second was not.
        assert!(matches!(one, Err(SendError::Stale)), "{one:?}");
        assert!(matches!(two, Err(SendError::Lost)), "{two:?}");

        let mut one = acquire(&pool).await;
        assert_eq!(one.send(get("/6")).await.unwrap().status(), 200);
        drop(one);
        let mut one = acquire(&pool).await;
        assert!(one.is_reused());
        let stale = one.send(get("/7")).await;
        assert!(matches!(stale, Err(SendError::Stale)), "{stale:?}");
    };
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_found_out_by_pings_and_all_its_requests_end() {
    let (listener, address) = listen().await;
    let (hold, mut held) = mpsc::channel::<Peer>(1);
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener, &[]).await;
        // It answers one request, and neither reads nor says anything from then on.
        let stream = peer.request().await;
        peer.answer(stream).await;
        hold.send(peer).await.ok();
    });
    let all = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let ping = (Duration::from_millis(100), Duration::from_millis(100));
        let shared = Shared::begin(Socket::Plain(tcp), ping).await.unwrap();
        let mut stream = shared.stream().unwrap();
        let answer = stream.sender.try_send_request(get("http://provider/a"));
        assert_eq!(answer.await.unwrap().status(), 200);
        let silent = held.recv().await.unwrap();
        let (mut one, mut two) = (shared.stream().unwrap(), shared.stream().unwrap());
        let both = async {
            tokio::join!(
                one.sender.try_send_request(get("http://provider/b")),
                two.sender.try_send_request(get("http://provider/c")),
            )
        };
        let (one, two) = tokio::time::timeout(LIMIT, both).await.unwrap();
        assert!(one.is_err() && two.is_err());
        assert!(!shared.is_good(Instant::now()), "it would be used again");
        drop(silent);
    };
    LocalSet::new().run_until(all).await;
}

/// Answers every request of HTTP/1.1 with its first line; gives what it read.
fn echo(listener: TcpListener) -> mpsc::UnboundedReceiver<String> {
    let (heads, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let heads = heads.clone();
            tokio::spawn(async move {
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = tcp.read_u8().await else {
                            return;
                        };
                        head.push(byte);
                    }
                    heads.send(String::from_utf8(head).unwrap()).ok();
                    tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await
                        .unwrap();
                }
            });
        }
    });
    seen
}

#[tokio::test]
async fn a_request_to_a_plain_arm_is_handed_to_the_proxy_with_its_whole_address() {
    let (listener, address) = listen().await;
    let mut seen = echo(listener);
    let all = async {
        let env = ProxyEnv::always(&format!("http://me:hunter2@{address}"));
        let target = Target::new(&arm("http://provider.invalid:8000/v1", ""), &env).unwrap();
        let pool = Rc::new(Pool::new(target, Arc::default()));
        let mut connection = acquire(&pool).await;
        assert_eq!(
            connection.send(get("/v1/a?b=c")).await.unwrap().status(),
            200
        );
        let head = seen.recv().await.unwrap();
        let first = "GET http://provider.invalid:8000/v1/a?b=c HTTP/1.1\r\n";
        assert!(head.starts_with(first), "{head}");
        let told = "proxy-authorization: Basic bWU6aHVudGVyMg==\r\n";
        assert!(head.contains(told), "{head}");
    };
    LocalSet::new().run_until(all).await;
}

fn pool_resolved_by<const N: usize>(answers: [Says; N]) -> Rc<Pool> {
    let mut target = Target::new(&arm("http://provider.internal", ""), &direct()).unwrap();
    target.resolver = Some(Scripted::new(answers));
    Rc::new(Pool::new(target, Arc::default()))
}

#[tokio::test]
async fn new_connections_follow_the_name_and_outlive_its_resolver() {
    let ((one, at_one), (two, at_two)) = (listen().await, listen().await);
    let all = async {
        let pool = pool_resolved_by([
            Says::Found(vec![at_one]),
            Says::Found(vec![at_two]),
            Says::Fails,
            Says::Hangs,
        ]);
        pool.open(LIMIT).await.unwrap();
        one.accept().await.unwrap();
        // The answer serves for a while.
        pool.open(LIMIT).await.unwrap();
        one.accept().await.unwrap();
        pool.addresses.borrow_mut().expire();
        pool.open(LIMIT).await.unwrap();
        two.accept().await.unwrap();
        // A resolver that fails, and one that hangs, leave the last good answer and the time to use it.
        for _ in 0..2 {
            pool.addresses.borrow_mut().expire();
            pool.open(Duration::from_secs(2)).await.unwrap();
            two.accept().await.unwrap();
        }
    };
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn connections_take_turns_among_addresses_and_pass_over_one_that_is_dead() {
    let ((one, at_one), (two, at_two), (dead, at_dead)) =
        (listen().await, listen().await, listen().await);
    drop(dead);
    let all = async {
        let pool = pool_resolved_by([Says::Found(vec![at_dead, at_one, at_two])]);
        for _ in 0..2 {
            for _ in 0..2 {
                pool.open(LIMIT).await.unwrap();
            }
            // A second one at the same listener would be accepted in place of the other's.
            one.accept().await.unwrap();
            two.accept().await.unwrap();
        }
        let order = pool.addresses.borrow_mut().in_turn();
        assert_eq!(order.last(), Some(&at_dead));
    };
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn failures_to_connect_are_shared_by_all_who_wait() {
    let (listener, address) = listen().await;
    drop(listener);
    let all = async {
        let pool = pool_to(address, "2");
        let (one, two) = tokio::join!(pool.open(LIMIT), pool.open(LIMIT));
        for failed in [one, two] {
            assert_eq!(failed.unwrap_err().outcome, Outcome::Connect);
        }
        assert!(pool.openings.borrow().is_empty());
    };
    LocalSet::new().run_until(all).await;
}
