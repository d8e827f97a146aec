//! The dialects that LLM providers speak, as far as routing and measuring must understand them.
//!
//! Pure and sans-I/O: bytes go in, facts come out. Nothing here changes what an arm or a client receives,
//! except for the model name, which [`rewrite_request`] and [`ModelEcho`] splice, and the request for usage,
//! which [`rewrite_request`] makes and whose answer [`UsageStrip`] takes out. Whatever bytes arrive, nothing
//! here panics, and a line that cannot be read never harms the lines after it. Every buffer has a bound.
//!
//! Requests: [`read_request`], [`sticky_auto`], [`state_in_path`]. Answers: [`StreamWatch`] for streams,
//! [`read_plain`] for whole bodies, [`ids_of_answer`] for what they leave behind, [`classify_status`] for
//! refusals. Bodies of our own making: [`error_body`], [`error_event`].
#![deny(clippy::disallowed_methods)]

mod anthropic;
mod echo;
mod error;
mod headroom;
mod json;
mod learn;
mod limits;
mod openai;
mod plain;
mod price;
mod request;
mod sse;
mod state;
mod sticky;
mod stream;
mod usage;
mod usage_strip;

pub use echo::ModelEcho;
pub use error::{classify_status, error_body, error_event, with_clients_own_key};
pub use headroom::{Headroom, Left, read_headroom};
pub use learn::ids_of_answer;
pub use limits::{RETRY_AFTER_MS_MAX, clamp_retry_after, retry_after_ms};
pub use plain::{PlainFacts, is_page, read_plain, usage_at_the_end};
pub use price::cost_usd;
pub use request::{RequestFacts, read_request, replace_model, rewrite_request, usage_slot};
pub use state::{PathState, PinReason, hash_state, state_in_path};
pub use sticky::{hash_body, hash_key, sticky_auto, sticky_field};
pub use stream::{StreamError, StreamWatch};
pub use usage::{REPORTED_COST_HEADER, reported_cost};
pub use usage_strip::{UsageStrip, names_usage_option};

/// Which API a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `POST .../chat/completions`.
    OpenAiChat,
    /// `POST .../completions`.
    OpenAiCompletions,
    /// `POST .../embeddings`.
    OpenAiEmbeddings,
    /// `POST .../responses`.
    OpenAiResponses,
    /// `POST .../messages`.
    AnthropicMessages,
}

impl Dialect {
    /// The dialect of an eligible request, by method and the end of its path (without query; one
    /// trailing slash is tolerated). `None`: not eligible, the request belongs to legacy.
    #[must_use]
    pub fn of_path(method: &http::Method, path: &str) -> Option<Self> {
        if method != http::Method::POST {
            return None;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let (parent, last) = path.rsplit_once('/')?;
        match last {
            "completions" if parent.ends_with("/chat") => Some(Self::OpenAiChat),
            "completions" => Some(Self::OpenAiCompletions),
            "embeddings" => Some(Self::OpenAiEmbeddings),
            "responses" => Some(Self::OpenAiResponses),
            // The Assistants API posts to `/threads/{id}/messages`: state of one provider.
            "messages" if !parent.contains("/threads/") => Some(Self::AnthropicMessages),
            _ => None,
        }
    }

    /// What is done, in the words of OpenTelemetry's conventions for GenAI.
    #[must_use]
    pub const fn operation(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::OpenAiResponses | Self::AnthropicMessages => "chat",
            Self::OpenAiCompletions => "text_completion",
            Self::OpenAiEmbeddings => "embeddings",
        }
    }

    /// Whose API it is, in the same words; many providers speak that of another.
    #[must_use]
    pub const fn provider(self) -> &'static str {
        if self.is_anthropic() {
            "anthropic"
        } else {
            "openai"
        }
    }

    /// True for the one dialect that is not OpenAI's.
    const fn is_anthropic(self) -> bool {
        matches!(self, Self::AnthropicMessages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_five_posts_are_eligible() {
        let cases = [
            ("/v1/chat/completions", Some(Dialect::OpenAiChat)),
            ("/chat/completions/", Some(Dialect::OpenAiChat)),
            (
                "/openai/deployments/x/chat/completions",
                Some(Dialect::OpenAiChat),
            ),
            ("/v1/completions", Some(Dialect::OpenAiCompletions)),
            ("/completions", Some(Dialect::OpenAiCompletions)),
            ("/v1/embeddings", Some(Dialect::OpenAiEmbeddings)),
            ("/v1/responses", Some(Dialect::OpenAiResponses)),
            ("/v1/messages", Some(Dialect::AnthropicMessages)),
            ("/v1/messages/", Some(Dialect::AnthropicMessages)),
            ("/v1/messages//", None),
            ("/v1/messages/count_tokens", None),
            ("/v1/messages/batches", None),
            ("/v1/responses/resp_1/cancel", None),
            ("/v1/threads/t_1/messages", None),
            ("/v1/mychat/xcompletions", None),
            ("/v1/files", None),
            ("completions", None),
            ("", None),
            ("/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(
                Dialect::of_path(&http::Method::POST, path),
                expected,
                "{path}"
            );
            assert_eq!(
                Dialect::of_path(&http::Method::GET, path),
                None,
                "GET {path}"
            );
        }
    }
}
