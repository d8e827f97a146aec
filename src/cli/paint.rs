//! Colours for people at a terminal: what decides that they are used, and the few tones there are.
//!
//! A tone only repeats what a word says already, so that nothing is lost without colours.

use std::env;
use std::io::{self, IsTerminal as _};

/// What a colour stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As the terminal has it.
    Plain,
    /// It goes well.
    Good,
    /// Somebody should look.
    Care,
    /// Something is broken or sent back.
    Bad,
    /// Headings.
    Strong,
    /// What matters less.
    Faint,
}

/// Whether a stream gets colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    is_on: bool,
}

impl Paint {
    /// No colours.
    pub(super) const PLAIN: Self = Self { is_on: false };

    /// For standard output.
    pub(super) fn stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// For standard error.
    pub(super) fn stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(is_terminal: bool) -> Self {
        let is_on = decide(is_terminal, |name| env::var(name).ok());
        Self { is_on }
    }

    /// Whether there are colours.
    pub(super) const fn is_on(self) -> bool {
        self.is_on
    }

    /// A text in a tone.
    pub(super) fn tint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.is_on || text.is_empty() => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Care => "33",
            Tone::Bad => "1;31",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// `NO_COLOR` forbids, `CLICOLOR_FORCE` asks for it anywhere; else a terminal that can, unless
/// `CLICOLOR=0`.
fn decide(is_terminal: bool, var: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| var(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        false
    } else if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        true
    } else {
        let can = set("TERM").is_none_or(|term| term != "dumb");
        is_terminal && can && set("CLICOLOR").is_none_or(|value| value != "0")
    }
}

#[cfg(test)]
impl Paint {
    /// Colours whatever the stream is.
    pub(super) const FULL: Self = Self { is_on: true };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is a terminal, the environment, and whether there are colours.
    type Case = (bool, &'static [(&'static str, &'static str)], bool);

    #[test]
    fn colours_are_for_terminals_unless_the_environment_says_otherwise() {
        let cases: [Case; 11] = [
            (true, &[], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("NO_COLOR", "")], true),
            (false, &[("CLICOLOR_FORCE", "1")], true),
            (false, &[("CLICOLOR_FORCE", "0")], false),
            (true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (true, &[("CLICOLOR", "0")], false),
            (true, &[("CLICOLOR", "1")], true),
            (true, &[("TERM", "dumb")], false),
            (true, &[("TERM", "xterm-256color")], true),
        ];
        for (is_terminal, vars, expected) in cases {
            let var = |name: &str| {
                let found = vars.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(decide(is_terminal, var), expected, "{is_terminal} {vars:?}");
        }
    }

    #[test]
    fn tones_add_nothing_but_colour() {
        assert_eq!(Paint::PLAIN.tint(Tone::Bad, "TRIPPED"), "TRIPPED");
        assert_eq!(
            Paint::FULL.tint(Tone::Bad, "TRIPPED"),
            "\x1b[1;31mTRIPPED\x1b[0m"
        );
        assert_eq!(Paint::FULL.tint(Tone::Plain, "x"), "x");
    }
}
