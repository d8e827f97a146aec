//! `cutover status --watch`: the live view at a terminal, and the same as lines of JSON.
//!
//! Three parts that can be tried alone: `screen` holds what is known and turns a key into an effect,
//! `view` draws it, `feed` asks the daemon on a thread of its own. This file owns the terminal, and gives
//! it back however it ends: by a key, a signal, an error or a panic.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use http::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyEventKind,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::disable_raw_mode;

use super::client::{AdminClient, Asked};
use super::fields::word;
use super::follow::{self, Lost};
use super::paint::Paint;
use super::{Failure, harmless};
use crate::clock::UnixMillis;
use crate::stdout;

mod feed;
mod keys;
mod order;
mod screen;
mod view;

use feed::{Feed, News};
use keys::Effect;
use screen::Screen;

/// How long a key may wait for its effect at most, and news for theirs.
const TURN: Duration = Duration::from_millis(50);
/// Ages and countdowns on the screen are as old as this at most.
const REDRAW: Duration = Duration::from_millis(500);

/// `cutover status --watch --json`: one status per line, each second, while somebody reads.
pub(super) fn stream(client: &AdminClient) -> Result<(), Failure> {
    let mut lost = Lost::default();
    let mut is_first = true;
    loop {
        match client.try_ask(&Method::GET, "/api/v1/status", None) {
            Ok(status) => {
                lost.is_back();
                if !stdout::try_raw(&format!("{}\n", harmless::json(&status.to_string()))) {
                    return Ok(());
                }
            }
            Err(Asked::Gone(failure)) if !is_first => lost.tell(&failure),
            Err(failed) => return Err(failed.failure()),
        }
        is_first = false;
        std::thread::sleep(follow::EVERY);
    }
}

/// `cutover status --watch`
pub(super) fn watch(client: AdminClient) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Refused(
            "--watch needs a terminal; `cutover status --watch --json` writes one status per line \
             into a pipe"
                .to_owned(),
        ));
    }
    let screen = Screen::new(client.addr(), UnixMillis::now());
    let feed = Feed::start(client, restore).map_err(Failure::Failed)?;
    let mut held = Held::take().map_err(|error| broken(&error))?;
    let ended = run(&mut held.terminal, screen, &feed);
    drop(held);
    ended.map_err(|error| broken(&error))
}

fn broken(error: &io::Error) -> Failure {
    Failure::Failed(format!("the terminal cannot be used: {error}"))
}

/// The terminal, given back on drop.
struct Held {
    terminal: DefaultTerminal,
}

impl Held {
    fn take() -> io::Result<Self> {
        // This also sets a panic hook that gives the terminal back before the panic is told.
        let terminal = ratatui::try_init()?;
        let held = Self { terminal };
        // A pasted text must never act as keys.
        execute!(io::stdout(), EnableBracketedPaste)?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // The mode first: what is written may wait for a terminal that takes nothing.
    disable_raw_mode().ok();
    execute!(io::stdout(), DisableBracketedPaste).ok();
    // The other `restore` tells of a failure on standard error, which may be the terminal that is gone.
    ratatui::try_restore().ok();
}

fn run(terminal: &mut DefaultTerminal, mut screen: Screen, feed: &Feed) -> io::Result<()> {
    let paint = Paint::stdout();
    let mut drawn_at = None::<Instant>;
    loop {
        let mut is_new = false;
        loop {
            match feed.news.try_recv() {
                Ok(News::End) | Err(TryRecvError::Disconnected) => return Ok(()),
                Ok(news) => screen.hear(news, UnixMillis::now()),
                Err(TryRecvError::Empty) => break,
            }
            is_new = true;
        }
        feed.show(screen.rollout().map(|rollout| word(rollout, "/name")));
        if is_new || drawn_at.is_none_or(|at| at.elapsed() >= REDRAW) {
            terminal.draw(|frame| view::draw(frame, &screen, paint, UnixMillis::now()))?;
            drawn_at = Some(Instant::now());
        }
        if !event::poll(TURN)? {
            continue;
        }
        drawn_at = None;
        let effect = match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => screen.press(key),
            Event::Paste(text) => {
                screen.paste(&text);
                Effect::None
            }
            _ => Effect::None,
        };
        match effect {
            Effect::None => {}
            Effect::Quit => return Ok(()),
            Effect::Look => feed.look(),
            Effect::Send(order) => feed.send(order),
        }
    }
}
