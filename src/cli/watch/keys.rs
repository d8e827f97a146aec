//! What a key does: one place that turns it into a change of the screen and at most one effect.
//!
//! Pure. No single key changes a rollout: each order is explained first and takes Enter.
#![deny(clippy::disallowed_methods)]

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::order::{Action, Order};
use super::screen::{Answer, End, Field, Mode, Prompt, Screen, Seen};
use crate::cli::fields::word;

/// A reason in the log is read as one line.
const REASON_CHARS: usize = 200;
const WEIGHT_CHARS: usize = 8;

/// What has to happen outside the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The end.
    Quit,
    /// Ask the daemon at once.
    Look,
    /// Send an order.
    Send(Order),
}

impl Screen {
    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Effect::Quit;
        }
        match std::mem::replace(&mut self.mode, Mode::Look) {
            Mode::Look => self.press_looking(key),
            // Any key ends the help.
            Mode::Help => Effect::None,
            Mode::Ask(prompt) => self.press_asking(prompt, key),
        }
    }

    /// A text was pasted. It is typed into a prompt, and does nothing elsewhere.
    pub(super) fn paste(&mut self, text: &str) {
        if let Mode::Ask(prompt) = &mut self.mode {
            for c in text.chars() {
                prompt.type_char(c);
            }
        }
    }

    fn press_looking(&mut self, key: KeyEvent) -> Effect {
        if key
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
        {
            return Effect::None;
        }
        self.answer = self.answer.take().filter(|answer| answer.end == End::Open);
        let count = self.rollouts().len().max(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Effect::Quit,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char(' ') => return Effect::Look,
            KeyCode::Tab | KeyCode::Right => self.select((self.selected + 1) % count),
            KeyCode::BackTab | KeyCode::Left => self.select((self.selected + count - 1) % count),
            KeyCode::Down => {
                let last = self.own_decisions().map_or(0, <[_]>::len).saturating_sub(1);
                self.scroll = (self.scroll + 1).min(last);
            }
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Home => self.scroll = 0,
            KeyCode::Char(pressed) => {
                let action = Action::KEYS.iter().find(|(key, _)| *key == pressed);
                if let (Some((_, action)), Some(rollout)) = (action, self.rollout()) {
                    self.mode = Mode::Ask(Prompt {
                        action: *action,
                        rollout: word(rollout, "/name").to_owned(),
                        field: if *action == Action::SetWeight {
                            Field::Weight
                        } else {
                            Field::Reason
                        },
                        weight: String::new(),
                        reason: String::new(),
                        seen: Seen::of(rollout),
                        note: None,
                    });
                }
            }
            _ => {}
        }
        Effect::None
    }

    fn select(&mut self, place: usize) {
        self.selected = place;
        self.scroll = 0;
    }

    fn press_asking(&mut self, mut prompt: Prompt, key: KeyEvent) -> Effect {
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return Effect::None,
            KeyCode::Enter => return self.confirm(prompt),
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Up | KeyCode::Down => {
                prompt.field = match prompt.field {
                    Field::Reason if prompt.action == Action::SetWeight => Field::Weight,
                    Field::Reason | Field::Weight => Field::Reason,
                };
            }
            KeyCode::Backspace => drop(prompt.line().pop()),
            KeyCode::Char('u') if with_control => prompt.line().clear(),
            KeyCode::Char(c) if !with_control => prompt.type_char(c),
            _ => {}
        }
        self.mode = Mode::Ask(prompt);
        Effect::None
    }

    /// Sends the order, unless something stands in the way; the prompt then stays and says what.
    fn confirm(&mut self, mut prompt: Prompt) -> Effect {
        let weight = match prompt.parsed_weight() {
            Ok(weight) => weight,
            Err(problem) => {
                prompt.note = Some(problem);
                prompt.field = Field::Weight;
                self.mode = Mode::Ask(prompt);
                return Effect::None;
            }
        };
        if prompt.field == Field::Weight {
            prompt.field = Field::Reason;
            prompt.note = None;
            self.mode = Mode::Ask(prompt);
            return Effect::None;
        }
        // The controller goes on while a person types: what was read may not be what would happen now.
        let seen = self.rollout_named(&prompt.rollout).map(Seen::of);
        if let Some(seen) = seen.filter(|seen| prompt.action.may_raise() && *seen != prompt.seen) {
            prompt.note = Some("it changed meanwhile: read again, then Enter".to_owned());
            prompt.seen = seen;
            self.mode = Mode::Ask(prompt);
            return Effect::None;
        }
        // Its decision will be the newest.
        self.scroll = 0;
        self.answer = Some(Answer {
            end: End::Open,
            text: format!("{} {}: sent ...", prompt.action.name(), prompt.rollout),
        });
        Effect::Send(Order {
            action: prompt.action,
            rollout: prompt.rollout,
            weight,
            reason: prompt.reason.trim().to_owned(),
        })
    }
}

impl Prompt {
    fn line(&mut self) -> &mut String {
        match self.field {
            Field::Weight => &mut self.weight,
            Field::Reason => &mut self.reason,
        }
    }

    fn type_char(&mut self, c: char) {
        let most = match self.field {
            Field::Weight => WEIGHT_CHARS,
            Field::Reason => REASON_CHARS,
        };
        let line = self.line();
        if !c.is_control() && line.chars().count() < most {
            line.push(c);
        }
        self.note = None;
    }
}

#[cfg(test)]
mod tests;
