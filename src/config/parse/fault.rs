//! One thing that is wrong in a configuration file: where, what, and what to do about it.
//!
//! Plain values and their text form. Never prints a line of the file that may hold a secret.

use std::fmt;
use std::fmt::Write as _;

/// One fault (or warning) with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Where in the document, as `arms.canary.api-key`; empty for a syntax error.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// The line of the file, cut to a readable length, its values masked if one may be a secret.
    pub source: String,
}

/// Longer source lines are cut: a message is for reading.
const SHOWN_CHARS: usize = 160;

/// A source line with one of these words is shown without its values.
const SECRET_WORDS: [&str; 7] = [
    "key", "token", "secret", "password", "bearer", "sk-", "hooks.",
];

impl Fault {
    /// The whole message: `FILE:LINE:COLUMN: PATH: PROBLEM; REMEDY`, then the source line with a caret.
    /// No line feed at the end.
    #[must_use]
    pub fn render(&self, file_name: &str) -> String {
        let mut out = format!("{file_name}:{self}");
        if self.source.trim().is_empty() {
            return out;
        }
        let indent: String = self
            .source
            .chars()
            .take(self.column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let (line, source) = (self.line, &self.source);
        // Writing to a String cannot fail.
        write!(out, "\n{line:>5} | {source}\n      | {indent}^").ok();
        out
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A line of the file as it may be shown: cut, without control characters, without secrets.
/// `secret` says that it holds one; lines that look like it are masked anyway.
pub(in crate::config) fn shown(line: &str, secret: bool) -> String {
    let lower = line.to_ascii_lowercase();
    let hide = secret || SECRET_WORDS.iter().any(|word| lower.contains(word)) || has_userinfo(line);
    let visible = match line.split_once('=') {
        Some((key, _)) if hide => format!("{key}= ****"),
        None if hide && !line.trim_start().starts_with('[') => "****".to_owned(),
        _ => without_paths(line),
    };
    visible
        .chars()
        .take(SHOWN_CHARS)
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect()
}

/// The line with all that stands behind the host of a URL masked: the path of a webhook is its secret, and
/// in a file that is not TOML nothing tells which URL is one.
fn without_paths(line: &str) -> String {
    let mut pieces = line.split("://");
    let mut visible = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        visible.push_str("://");
        let is_end = |c: char| matches!(c, '"' | '\'') || c.is_whitespace();
        let (url, rest) = piece.split_at(piece.find(is_end).unwrap_or(piece.len()));
        match url.find(['/', '?', '#', '\\', '%']) {
            Some(at) if url.len() > at + 1 => {
                visible.push_str(url.get(..at).unwrap_or_default());
                visible.push_str("/****");
            }
            _ => visible.push_str(url),
        }
        visible.push_str(rest);
    }
    visible
}

/// True if the line has a URL with a user or password in it.
fn has_userinfo(line: &str) -> bool {
    line.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '"', '\'']).next().unwrap_or_default();
        authority.contains('@')
    })
}

/// Line and column (both from 1, columns in characters) of a byte offset.
pub(in crate::config) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default();
    (line, column.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a = 1\nb\u{e4}r = 2\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 6), (2, 1));
        assert_eq!(position(text, 9), (2, 3));
        assert_eq!(position(text, 999), (3, 1));
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_shown_without_it() {
        let lines = [
            "api_key = \"hunter2\"",
            "  api-key = hunter2",
            "canary = { base-url = 5, api-key = \"hunter2\" }",
            "base-url = \"https://me:hunter2@example.com\"",
            "x = \"sk-hunter2\"",
            "sk-hunter2",
        ];
        for line in lines {
            assert!(!shown(line, false).contains("hunter2"), "{line}");
        }
        // A missing comma: nothing tells that this is a webhook, and nothing else may be lost.
        let line = r#"webhooks = [{ url = "https://ops.example.com/in/a8f3" format = "json" }]"#;
        assert_eq!(
            shown(line, false),
            r#"webhooks = [{ url = "https://ops.example.com/****" format = "json" }]"#
        );
        let line = r#"a = "http://a.b/", b = "http://b.c:80?x=a8f3", c = "http://d.e/a8f3 # open"#;
        assert_eq!(
            shown(line, false),
            r#"a = "http://a.b/", b = "http://b.c:80/****", c = "http://d.e/**** # open"#
        );
        assert!(shown("aip-kye = \"hunter2\"", false).contains("hunter2"));
        assert!(!shown("aip-kye = \"hunter2\"", true).contains("hunter2"));
    }
}
