//! What the scripted provider says: the same bytes for the same request, always.

use serde_json::{Value, json};

use super::Request;
use super::script::{Draft, Flaw};

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
    /// The tokens of the answer.
    words: Vec<String>,
}

/// A good answer, apart from `flaw`.
pub(super) fn answer(api: Api, provider: &str, request: &Request, flaw: Option<Flaw>) -> Draft {
    let body = request.json();
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let mut words = vec![provider.to_owned(), " as ".to_owned(), model.clone()];
    words.extend(TAIL.map(str::to_owned));
    if flaw == Some(Flaw::HugeEvent) {
        words[4] = "x".repeat(1024 * 1024);
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
                "model": self.model, "choices": [{
                    "index": 0, "finish_reason": "stop", "logprobs": null,
                    "message": {"role": "assistant", "content": self.text(), "refusal": null},
                }], "usage": self.chat_usage()}),
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
                "content": [{"type": "text", "text": self.text()}],
                "stop_reason": "end_turn", "stop_sequence": null,
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

    fn flawed_events(&self) -> Vec<Vec<u8>> {
        let (start, tokens, end) = match self.api {
            Api::Messages => self.message_events(),
            Api::Responses => self.response_events(),
            _ => self.chat_events(),
        };
        let mut events = start;
        let few = tokens.len().min(3);
        match self.flaw {
            Some(Flaw::EarlyError) => events.push(self.error_event()),
            Some(Flaw::InbandError) => {
                events.extend(tokens.into_iter().take(few));
                events.push(self.error_event());
            }
            Some(Flaw::NoDone) => events.extend(tokens),
            Some(Flaw::MalformedLine) => {
                events.extend(tokens.iter().take(few).cloned());
                events.push("data: {\"id\": broken\n\n".to_owned());
                events.extend(tokens.into_iter().skip(few));
                events.extend(end);
            }
            _ => {
                events.extend(tokens);
                events.extend(end);
            }
        }
        let shaped = events.into_iter().map(|event| match self.flaw {
            Some(Flaw::Crlf) => event.replace('\n', "\r\n"),
            Some(Flaw::Comments) => format!(": still here\n\n{event}"),
            _ => event,
        });
        shaped.map(String::into_bytes).collect()
    }

    fn chat_events(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let chat = self.api == Api::Chat;
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk",
                "created": CREATED, "model": self.model, "choices": choices});
            if let Some(usage) = usage {
                chunk["usage"] = usage;
            }
            format!("data: {chunk}\n\n")
        };
        let choice = |content: Value, reason: Option<&str>| {
            let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": reason});
            if chat {
                choice["delta"] = content;
            } else {
                choice["text"] = content.get("content").cloned().unwrap_or(json!(""));
            }
            chunk(json!([choice]), None)
        };
        let start = vec![choice(json!({"role": "assistant", "content": ""}), None)];
        let tokens = self.words.iter();
        let tokens = tokens.map(|word| choice(json!({"content": word}), None));
        let mut end = vec![choice(json!({}), Some("stop"))];
        if self.include_usage && self.flaw != Some(Flaw::NoUsage) {
            end.push(chunk(json!([]), Some(self.chat_usage())));
        }
        end.push("data: [DONE]\n\n".to_owned());
        (start, tokens.collect(), end)
    }

    fn message_events(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let start = json!({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": self.messages_usage(1)}});
        let block = json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}});
        let tokens = self.words.iter().map(|word| {
            event(&json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": word}}))
        });
        let mut delta = json!({"type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": null}});
        if self.flaw != Some(Flaw::NoUsage) {
            delta["usage"] = json!({"output_tokens": self.words.len()});
        }
        (
            vec![
                event(&start),
                event(&block),
                event(&json!({"type": "ping"})),
            ],
            tokens.collect(),
            vec![
                event(&json!({"type": "content_block_stop", "index": 0})),
                event(&delta),
                event(&json!({"type": "message_stop"})),
            ],
        )
    }

    fn response_events(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let state = |kind: &str, number: usize, status: &str, done: bool| {
            event(
                &json!({"type": format!("response.{kind}"), "sequence_number": number,
                "response": self.response(status, done)}),
            )
        };
        let tokens = self.words.iter().enumerate().map(|(number, word)| {
            event(
                &json!({"type": "response.output_text.delta", "sequence_number": number + 2,
                "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word}),
            )
        });
        (
            vec![
                state("created", 0, "in_progress", false),
                state("in_progress", 1, "in_progress", false),
            ],
            tokens.collect(),
            vec![state("completed", self.words.len() + 2, "completed", true)],
        )
    }

    fn response(&self, status: &str, done: bool) -> Value {
        let mut response = json!({"id": "resp_1", "object": "response", "created_at": CREATED,
            "model": self.model, "status": status, "error": null, "output": [], "usage": null});
        if done {
            let text = json!({"type": "output_text", "text": self.text(), "annotations": []});
            response["output"] = json!([{"type": "message", "id": "msg_1",
                "status": "completed", "role": "assistant", "content": [text]}]);
            if self.flaw != Some(Flaw::NoUsage) {
                let tokens = self.words.len();
                response["usage"] = json!({"input_tokens": 11, "output_tokens": tokens,
                    "total_tokens": 11 + tokens, "input_tokens_details": {"cached_tokens": 2},
                    "output_tokens_details": {"reasoning_tokens": 0}});
            }
        }
        response
    }

    fn error_event(&self) -> String {
        let message = "scripted error in the stream";
        match self.api {
            Api::Messages => event(&json!({"type": "error",
                "error": {"type": "overloaded_error", "message": message}})),
            Api::Responses => event(&json!({"type": "error", "sequence_number": 99,
                "code": "server_error", "message": message, "param": null})),
            _ => {
                let error = json!({"error": {"message": message, "type": "server_error",
                    "param": null, "code": null}});
                format!("data: {error}\n\n")
            }
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
        (400, "param") => "Unknown parameter: 'stream_options'.",
        _ => message,
    };
    let param = (detail == "param").then_some("stream_options");
    let body = if api.is_anthropic() {
        json!({"type": "error", "error": {"type": kind, "message": message}})
    } else {
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    };
    let mut draft = json_draft(body.to_string().into_bytes());
    draft.status = status;
    if let Some(seconds) = detail.strip_prefix("retry-after-") {
        draft
            .headers
            .push(("retry-after".to_owned(), seconds.to_owned()));
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

/// A gzip file of stored blocks: valid for every reader, without a compressor.
pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks: Vec<&[u8]> = data.chunks(0xffff).collect();
    for (index, block) in blocks.iter().enumerate() {
        let length = u16::try_from(block.len()).unwrap();
        file.push(u8::from(index + 1 == blocks.len()));
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend(*block);
    }
    let crc = !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    file.extend(crc.to_le_bytes());
    file.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    file
}
