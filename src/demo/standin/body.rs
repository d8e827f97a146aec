//! What a stand-in says, in the dialect of the question. Pure: a question and a profile give bytes.
#![deny(clippy::disallowed_methods)]

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Profile, Spread};

const SENTENCES: [&str; 12] = [
    "Yes, that can be done in one step.",
    "The report shows a small rise in the second quarter.",
    "Please check the address and send the form again.",
    "In short, both options cost about the same.",
    "The meeting was moved to Thursday at ten.",
    "A retry after a short pause will usually help.",
    "Here is a shorter version of your text.",
    "The parcel left the warehouse this morning.",
    "Most of the time is spent waiting for the disk.",
    "You may return the device within thirty days.",
    "The second paragraph repeats what the first one says.",
    "There is no direct train, but one change is enough.",
];

/// How a request wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Chat,
    Messages,
    Embeddings,
}

/// One question with all that its answer depends on.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) dialect: Dialect,
    pub(super) model: String,
    pub(super) stream: bool,
    include_usage: bool,
    id: u64,
    created: u64,
    fingerprint: String,
    prompt_tokens: usize,
    /// The words of the answer, each with the space that follows it.
    words: Vec<&'static str>,
    cut_short: bool,
    inputs: usize,
}

impl Question {
    /// Reads a request body. Only the words of the question and the length asked for shape the answer:
    /// what a proxy adds or renames does not.
    pub(super) fn read(dialect: Dialect, body: &Value, profile: &Profile, created: u64) -> Self {
        let asked = match dialect {
            Dialect::Chat | Dialect::Messages => body.get("messages"),
            Dialect::Embeddings => body.get("input"),
        };
        let asked = asked.unwrap_or(&Value::Null);
        let text = asked.to_string();
        let id = xxh3_64_with_seed(text.as_bytes(), profile.seed);
        let wanted = Spread {
            median_ms: profile.tokens,
            sigma: 0.4,
        }
        .draw_ms(&mut StdRng::seed_from_u64(id));
        let limit = ["max_completion_tokens", "max_tokens"]
            .iter()
            .find_map(|key| body.get(*key)?.as_u64())
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to the range of answers"
        )]
        let wanted = wanted.clamp(1.0, 4_000.0) as usize;
        Self {
            dialect,
            model: text_of(body.get("model")),
            stream: body.get("stream").and_then(Value::as_bool) == Some(true),
            include_usage: body
                .pointer("/stream_options/include_usage")
                .and_then(Value::as_bool)
                == Some(true),
            id,
            created,
            fingerprint: format!("fp_{}", profile.name),
            prompt_tokens: 3 + text.len() / 4,
            words: words(id, wanted.min(limit)),
            cut_short: wanted > limit,
            inputs: asked.as_array().map_or(1, Vec::len),
        }
    }

    /// How many tokens the answer has.
    pub(super) fn tokens(&self) -> usize {
        self.words.len()
    }

    /// The whole answer at once.
    pub(super) fn plain(&self) -> Bytes {
        let answer = match self.dialect {
            Dialect::Chat => json!({
                "id": format!("chatcmpl-{:016x}", self.id), "object": "chat.completion",
                "created": self.created, "model": self.model, "service_tier": "default",
                "system_fingerprint": self.fingerprint,
                "choices": [{
                    "index": 0, "logprobs": null, "finish_reason": self.finish_reason(),
                    "message": {
                        "role": "assistant", "content": self.words.concat(),
                        "refusal": null, "annotations": [],
                    },
                }],
                "usage": self.chat_usage(),
            }),
            Dialect::Messages => json!({
                "id": format!("msg_{:016x}", self.id), "type": "message", "role": "assistant",
                "model": self.model, "stop_reason": self.finish_reason(), "stop_sequence": null,
                "content": [{"type": "text", "text": self.words.concat()}],
                "usage": self.messages_usage(self.tokens()),
            }),
            Dialect::Embeddings => self.embeddings(),
        };
        Bytes::from(answer.to_string())
    }

    /// The answer as events: those before the first token, one for each token, those that end it.
    pub(super) fn events(&self) -> (Vec<Bytes>, Vec<Bytes>, Vec<Bytes>) {
        match self.dialect {
            Dialect::Messages => self.message_events(),
            Dialect::Chat | Dialect::Embeddings => self.chat_events(),
        }
    }

    fn chat_events(&self) -> (Vec<Bytes>, Vec<Bytes>, Vec<Bytes>) {
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = json!({
                "id": format!("chatcmpl-{:016x}", self.id), "object": "chat.completion.chunk",
                "created": self.created, "model": self.model, "service_tier": "default",
                "system_fingerprint": self.fingerprint, "choices": choices,
            });
            if let (true, Some(chunk)) = (self.include_usage, chunk.as_object_mut()) {
                chunk.insert("usage".to_owned(), usage);
            }
            Bytes::from(format!("data: {chunk}\n\n"))
        };
        let delta = |delta: Value, finish_reason: Option<&str>| {
            let choice = json!({
                "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason,
            });
            chunk(json!([choice]), Value::Null)
        };
        let start = json!({"role": "assistant", "content": "", "refusal": null});
        let mut end = vec![delta(json!({}), Some(self.finish_reason()))];
        if self.include_usage {
            end.push(chunk(json!([]), self.chat_usage()));
        }
        end.push(Bytes::from_static(b"data: [DONE]\n\n"));
        let tokens = self.words.iter();
        (
            vec![delta(start, None)],
            tokens
                .map(|word| delta(json!({"content": word}), None))
                .collect(),
            end,
        )
    }

    fn message_events(&self) -> (Vec<Bytes>, Vec<Bytes>, Vec<Bytes>) {
        let start = json!({"type": "message_start", "message": {
            "id": format!("msg_{:016x}", self.id), "type": "message", "role": "assistant",
            "model": self.model, "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": self.messages_usage(1),
        }});
        let block = json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}});
        let token = |word: &&str| {
            event(&json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": word}}))
        };
        let delta = json!({"type": "message_delta",
            "delta": {"stop_reason": self.finish_reason(), "stop_sequence": null},
            "usage": {"output_tokens": self.tokens()}});
        (
            vec![
                event(&start),
                event(&block),
                event(&json!({"type": "ping"})),
            ],
            self.words.iter().map(token).collect(),
            vec![
                event(&json!({"type": "content_block_stop", "index": 0})),
                event(&delta),
                event(&json!({"type": "message_stop"})),
            ],
        )
    }

    fn embeddings(&self) -> Value {
        let vector = |index: usize| {
            let mut rng = StdRng::seed_from_u64(self.id.wrapping_add(index as u64));
            let vector: Vec<f64> = (0..8).map(|_| rng.random_range(-1.0..1.0)).collect();
            json!({"object": "embedding", "index": index, "embedding": vector})
        };
        json!({
            "object": "list", "model": self.model,
            "data": (0..self.inputs).map(vector).collect::<Vec<_>>(),
            "usage": {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens},
        })
    }

    fn finish_reason(&self) -> &'static str {
        match (self.dialect, self.cut_short) {
            (Dialect::Messages, true) => "max_tokens",
            (Dialect::Messages, false) => "end_turn",
            (_, true) => "length",
            (_, false) => "stop",
        }
    }

    fn chat_usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens(),
            "total_tokens": self.prompt_tokens + self.tokens(),
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        })
    }

    fn messages_usage(&self, output_tokens: usize) -> Value {
        json!({"input_tokens": self.prompt_tokens, "output_tokens": output_tokens,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0})
    }
}

/// The error body of a status in a dialect, with the words the real ones use.
pub(super) fn error(dialect: Dialect, status: u16, message: &str) -> Bytes {
    let kind = match (dialect, status) {
        (_, 400 | 413 | 422) => "invalid_request_error",
        (Dialect::Messages, 404) => "not_found_error",
        (Dialect::Messages, 429) => "rate_limit_error",
        (Dialect::Messages, 401) => "authentication_error",
        (Dialect::Messages, 529) => "overloaded_error",
        (Dialect::Messages, _) => "api_error",
        (_, 401 | 404) => "invalid_request_error",
        (_, 429) => "requests",
        _ => "server_error",
    };
    let body = if dialect == Dialect::Messages {
        json!({"type": "error", "error": {"type": kind, "message": message}})
    } else {
        let code = match status {
            401 => Some("invalid_api_key"),
            404 => Some("model_not_found"),
            429 => Some("rate_limit_exceeded"),
            _ => None,
        };
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    };
    Bytes::from(body.to_string())
}

fn event(data: &Value) -> Bytes {
    let kind = data.get("type").and_then(Value::as_str).unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {data}\n\n"))
}

fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// `count` words of sentences picked by `id`.
fn words(id: u64, count: usize) -> Vec<&'static str> {
    let mut rng = StdRng::seed_from_u64(id);
    let mut words = Vec::new();
    while words.len() < count {
        let sentence = SENTENCES.get(rng.random_range(0..SENTENCES.len()));
        if !words.is_empty() {
            words.push(" ");
        }
        words.extend(sentence.unwrap_or(&"").split_inclusive(' '));
    }
    words.truncate(count);
    words
}
