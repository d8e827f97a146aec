//! What the scripted provider says: the same bytes for the same request, always.

mod stream;

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use super::Request;
use super::script::{Coding, Draft, Flaw};

/// The words of every answer, after the provider's name and the model.
const TAIL: [&str; 6] = [" was", " asked", " and", " answers", " in", " tokens."];
const CREATED: u64 = 1_700_000_000;

/// Which interface a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Messages,
    CountTokens,
    Models,
    /// Anything else is told what it sent.
    Echo,
}

impl Api {
    pub(super) fn of(request: &Request) -> Self {
        match (request.method.as_str(), request.path()) {
            ("POST", "/v1/chat/completions") => Self::Chat,
            ("POST", "/v1/completions") => Self::Completions,
            ("POST", "/v1/embeddings") => Self::Embeddings,
            ("POST", "/v1/responses") => Self::Responses,
            ("POST", "/v1/messages") => Self::Messages,
            ("POST", "/v1/messages/count_tokens") => Self::CountTokens,
            ("GET" | "HEAD", "/v1/models") => Self::Models,
            _ => Self::Echo,
        }
    }

    fn is_anthropic(self) -> bool {
        matches!(self, Self::Messages | Self::CountTokens)
    }
}

/// One answer in the making.
struct Answer<'a> {
    api: Api,
    provider: &'a str,
    model: String,
    include_usage: bool,
    flaw: Option<Flaw>,
    /// The request offers tools: the answer calls one.
    calls_tool: bool,
    /// Of the state that the answer gives out, if the model is called `state` or `state` is true: no other answer has it.
    mark: Option<String>,
    /// The tokens of the answer.
    words: Vec<String>,
}

/// The arguments of every call of a tool, in the parts that a stream gives them in.
const ARGUMENTS: [&str; 3] = ["{\"city\":", "\"Z\u{fc}rich", "\"}"];
const TOOL: &str = "weather";

/// A good answer, apart from `flaw`.
pub(super) fn answer(api: Api, provider: &str, request: &Request, flaw: Option<Flaw>) -> Draft {
    let body = request.json();
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let mut words = vec![provider.to_owned(), " as ".to_owned(), model.clone()];
    words.extend(TAIL.map(str::to_owned));
    if let Some(Flaw::HugeEvent(mib)) = flaw {
        words[4] = "x".repeat(mib * 1024 * 1024);
    }
    if flaw == Some(Flaw::Utf8Split) {
        words[4] = " Gr\u{fc}\u{df}e \u{6f22}\u{5b57} \u{1f980}".to_owned();
    }
    if flaw == Some(Flaw::Empty) {
        words.clear();
    }
    let answer = Answer {
        api,
        provider,
        model,
        include_usage: body["stream_options"]["include_usage"] == json!(true),
        flaw,
        calls_tool: body["tools"].is_array(),
        mark: (body["model"] == "state" || body["state"] == true)
            .then(|| format!("{provider}_{}", request.order)),
        words,
    };
    let stream = body["stream"] == json!(true);
    if !stream
        || matches!(
            api,
            Api::Embeddings | Api::CountTokens | Api::Models | Api::Echo
        )
    {
        return answer.plain(request);
    }
    Draft {
        status: 200,
        content_type: "text/event-stream; charset=utf-8",
        headers: vec![("cache-control".to_owned(), "no-cache".to_owned())],
        parts: answer.flawed_events(),
        chunked: true,
    }
}

impl Answer<'_> {
    fn text(&self) -> String {
        self.words.concat()
    }

    fn plain(&self, request: &Request) -> Draft {
        match self.flaw {
            Some(Flaw::InbandError | Flaw::EarlyError) => {
                return Draft {
                    status: 200,
                    ..error(self.api, 500, "scripted error in the answer", "")
                };
            }
            Some(Flaw::MalformedLine) => return json_draft(b"{\"id\": broken}".to_vec()),
            _ => {}
        }
        let mut body = self.plain_body(request);
        if self.flaw == Some(Flaw::NoUsage) {
            body.as_object_mut().unwrap().remove("usage");
        }
        if self.flaw == Some(Flaw::Empty) {
            for key in ["choices", "content", "output", "data"] {
                if let Some(list) = body.get_mut(key) {
                    *list = json!([]);
                }
            }
        }
        json_draft(body.to_string().into_bytes())
    }

    fn plain_body(&self, request: &Request) -> Value {
        match self.api {
            Api::Chat => json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": CREATED,
                "model": self.model, "choices": [self.chat_choice()],
                "usage": self.chat_usage()}),
            Api::Completions => json!({
            "id": "cmpl-1", "object": "text_completion", "created": CREATED,
            "model": self.model, "usage": self.chat_usage(), "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": null, "text": self.text(),
            }]}),
            Api::Embeddings => json!({
                "object": "list", "model": self.model,
                "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25, 0.125]}],
                "usage": {"prompt_tokens": 4, "total_tokens": 4}}),
            Api::Responses => self.response("completed", true),
            Api::Messages => json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": self.model,
                "content": self.message_content(),
                "stop_reason": self.stop_reason(), "stop_sequence": null,
                "usage": self.messages_usage(self.words.len())}),
            Api::CountTokens => json!({"input_tokens": 11}),
            Api::Models => json!({"object": "list", "has_more": false, "data": [
                {"id": format!("{}-model", self.provider), "object": "model", "type": "model",
                    "created": CREATED, "owned_by": self.provider}]}),
            Api::Echo => json!({
                "object": "echo", "provider": self.provider, "method": request.method,
                "target": request.target, "body": String::from_utf8_lossy(&request.body)}),
        }
    }

    fn chat_usage(&self) -> Value {
        let tokens = self.words.len();
        let mut usage = json!({"prompt_tokens": 11, "completion_tokens": tokens,
            "total_tokens": 11 + tokens, "prompt_tokens_details": {"cached_tokens": 2}});
        if self.flaw == Some(Flaw::Cost) {
            usage["cost"] = json!(0.25);
            usage["cost_details"] = json!({"upstream_inference_cost": 99.0});
        }
        usage
    }

    fn messages_usage(&self, output_tokens: usize) -> Value {
        json!({"input_tokens": 9, "cache_read_input_tokens": 2,
            "cache_creation_input_tokens": 0, "output_tokens": output_tokens})
    }
}

/// An error answer; `detail` is what follows the status in the fault's name.
pub(super) fn error(api: Api, status: u16, message: &str, detail: &str) -> Draft {
    let (kind, code) = match (status, detail) {
        (404, "model") if api.is_anthropic() => ("not_found_error", None),
        (404, "model") => ("invalid_request_error", Some("model_not_found")),
        (429, "quota") => ("insufficient_quota", Some("insufficient_quota")),
        (400, "credit") => ("invalid_request_error", None),
        (429, _) if api.is_anthropic() => ("rate_limit_error", None),
        (429, _) => ("requests", Some("rate_limit_exceeded")),
        (401, _) if api.is_anthropic() => ("authentication_error", None),
        (401, _) => ("invalid_request_error", Some("invalid_api_key")),
        (529, _) => ("overloaded_error", None),
        (400, "param") => ("invalid_request_error", Some("unknown_parameter")),
        (400 | 404 | 413 | 422, _) => ("invalid_request_error", None),
        _ if api.is_anthropic() => ("api_error", None),
        _ => ("server_error", None),
    };
    let message = match (status, detail) {
        (404, "model") => "the model does not exist",
        (400, "credit") => "Your credit balance is too low to access the API.",
        (400 | 422, "param" | "usage") => "Unknown parameter: 'stream_options'.",
        _ => message,
    };
    let param = matches!(detail, "param" | "usage").then_some("stream_options");
    let body = if api.is_anthropic() {
        json!({"type": "error", "error": {"type": kind, "message": message}})
    } else {
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    };
    let mut draft = json_draft(body.to_string().into_bytes());
    draft.status = status;
    if let Some(wait) = detail.strip_prefix("retry-after-") {
        let wait = if wait == "date" {
            "Fri, 31 Dec 2049 23:59:59 GMT"
        } else {
            wait
        };
        draft
            .headers
            .push(("retry-after".to_owned(), wait.to_owned()));
    }
    draft
}

fn json_draft(body: Vec<u8>) -> Draft {
    Draft {
        status: 200,
        content_type: "application/json",
        headers: Vec::new(),
        parts: vec![body],
        chunked: false,
    }
}

fn event(data: &Value) -> String {
    format!(
        "event: {}\ndata: {data}\n\n",
        data["type"].as_str().unwrap()
    )
}

/// The parts compressed, each flushed so that it can be read at once; the last one ends the body.
pub(super) fn coded(coding: Coding, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let mut coded = flushed(&mut encoder, parts, |encoder| {
                std::mem::take(encoder.get_mut())
            });
            coded.push(encoder.finish().unwrap());
            coded
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            let mut coded = flushed(&mut encoder, parts, |encoder| {
                std::mem::take(encoder.get_mut())
            });
            coded.push(encoder.finish().unwrap());
            coded
        }
        Coding::Brotli => parts
            .iter()
            .map(|part| part.iter().map(|byte| !byte).collect())
            .collect(),
        Coding::Garbled => parts.to_vec(),
    }
}

fn flushed<W: Write>(
    encoder: &mut W,
    parts: &[Vec<u8>],
    take: impl Fn(&mut W) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let parts = parts.iter().map(|part| {
        encoder.write_all(part).unwrap();
        encoder.flush().unwrap();
        take(encoder)
    });
    parts.collect()
}
