//! The events of the scripted provider's streams, with what is wrong in them.

use serde_json::{Value, json};

use super::super::script::Flaw;
use super::{ARGUMENTS, Answer, Api, CREATED, TOOL, event};

impl Answer<'_> {
    pub(super) fn flawed_events(&self) -> Vec<Vec<u8>> {
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
            Some(Flaw::NoMarker) => {
                events.extend(tokens);
                events.extend(end);
                events.pop();
            }
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
            Some(Flaw::Cr) => event.replace('\n', "\r"),
            Some(Flaw::NoSpace) => event.replace("data: ", "data:"),
            Some(Flaw::Unnamed) => event
                .split_inclusive('\n')
                .filter(|line| !line.starts_with("event:"))
                .collect(),
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
        if self.calls_tool {
            return self.chat_tool_events(choice);
        }
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

    pub(super) fn chat_choice(&self) -> Value {
        let mut choice = json!({"index": 0, "finish_reason": "stop", "logprobs": null,
            "message": {"role": "assistant", "content": self.text(), "refusal": null}});
        if self.calls_tool {
            choice["finish_reason"] = json!("tool_calls");
            choice["message"]["content"] = Value::Null;
            choice["message"]["tool_calls"] = json!([{"id": "call_1", "type": "function",
                "function": {"name": TOOL, "arguments": ARGUMENTS.concat()}}]);
        }
        choice
    }

    fn chat_tool_events(
        &self,
        choice: impl Fn(Value, Option<&str>) -> String,
    ) -> (Vec<String>, Vec<String>, Vec<String>) {
        let call = json!({"index": 0, "id": "call_1", "type": "function",
            "function": {"name": TOOL, "arguments": ""}});
        let start = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let tokens = ARGUMENTS.map(|part| {
            let call = json!({"index": 0, "function": {"arguments": part}});
            choice(json!({"tool_calls": [call]}), None)
        });
        let end = choice(json!({}), Some("tool_calls"));
        (
            vec![choice(start, None)],
            tokens.to_vec(),
            vec![end, "data: [DONE]\n\n".to_owned()],
        )
    }

    pub(super) fn stop_reason(&self) -> &'static str {
        if self.calls_tool {
            "tool_use"
        } else {
            "end_turn"
        }
    }

    /// The one block of a message; `whole` with its content, else as it is announced.
    fn message_block(&self, whole: bool) -> Value {
        match (self.calls_tool, whole) {
            (false, true) => json!({"type": "text", "text": self.text()}),
            (false, false) => json!({"type": "text", "text": ""}),
            (true, _) => {
                let input: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
                let input = if whole { input } else { json!({}) };
                json!({"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": input})
            }
        }
    }

    /// What a message or a response is streamed in.
    fn pieces(&self) -> Vec<String> {
        if self.calls_tool {
            ARGUMENTS.map(str::to_owned).to_vec()
        } else {
            self.words.clone()
        }
    }

    fn message_events(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let start = json!({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": self.messages_usage(1)}});
        let block = json!({"type": "content_block_start", "index": 0,
            "content_block": self.message_block(false)});
        let tokens = self.pieces().into_iter().map(|piece| {
            let delta = if self.calls_tool {
                json!({"type": "input_json_delta", "partial_json": piece})
            } else {
                json!({"type": "text_delta", "text": piece})
            };
            event(&json!({"type": "content_block_delta", "index": 0, "delta": delta}))
        });
        let tokens = self.thinking_events().into_iter().chain(tokens);
        let mut delta = json!({"type": "message_delta",
            "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null}});
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
        let number = |of: usize| of + 3;
        let tokens = self.pieces();
        let last = number(tokens.len());
        let mut item = self.response_item();
        let done = json!({"type": "response.output_item.done", "sequence_number": last,
            "output_index": 0, "item": item});
        item["status"] = json!("in_progress");
        let emptied = if self.calls_tool {
            "arguments"
        } else {
            "content"
        };
        item[emptied] = if self.calls_tool {
            json!("")
        } else {
            json!([])
        };
        let added = json!({"type": "response.output_item.added", "sequence_number": 2,
            "output_index": 0, "item": item});
        let mut start = vec![
            state("created", 0, "in_progress", false),
            state("in_progress", 1, "in_progress", false),
            event(&added),
        ];
        if !self.calls_tool {
            start.push(event(&json!({"type": "response.content_part.added",
                "sequence_number": 2, "item_id": item["id"], "output_index": 0,
                "content_index": 0,
                "part": {"type": "output_text", "text": "", "annotations": []}})));
        }
        let tokens = tokens.into_iter().enumerate().map(|(at, piece)| {
            let mut delta = json!({"type": "response.output_text.delta", "content_index": 0,
                "sequence_number": number(at), "item_id": item["id"], "output_index": 0,
                "delta": piece, "logprobs": []});
            if self.calls_tool {
                delta["type"] = json!("response.function_call_arguments.delta");
                delta.as_object_mut().unwrap().remove("content_index");
                delta.as_object_mut().unwrap().remove("logprobs");
            }
            event(&delta)
        });
        (
            start,
            tokens.collect(),
            vec![
                event(&done),
                state("completed", last + 1, "completed", true),
            ],
        )
    }

    pub(super) fn response_item(&self) -> Value {
        if self.calls_tool {
            return json!({"type": "function_call", "id": "fc_1", "call_id": "call_1",
                "name": TOOL, "arguments": ARGUMENTS.concat(), "status": "completed"});
        }
        let text = json!({"type": "output_text", "text": self.text(), "annotations": []});
        json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [text]})
    }

    pub(super) fn message_content(&self) -> Value {
        let block = self.message_block(true);
        match &self.mark {
            None => json!([block]),
            Some(mark) => json!([
                {"type": "thinking", "thinking": "hm", "signature": format!("sig_{mark}")}, block]),
        }
    }

    /// Thinking with a signature in two pieces.
    fn thinking_events(&self) -> Vec<String> {
        let Some(mark) = &self.mark else {
            return Vec::new();
        };
        let delta = |delta: Value| {
            event(&json!({"type": "content_block_delta", "index": 7, "delta": delta}))
        };
        vec![
            event(&json!({"type": "content_block_start", "index": 7,
                "content_block": {"type": "thinking", "thinking": "", "signature": ""}})),
            delta(json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(json!({"type": "signature_delta", "signature": "sig_"})),
            delta(json!({"type": "signature_delta", "signature": mark})),
            event(&json!({"type": "content_block_stop", "index": 7})),
        ]
    }

    pub(super) fn response(&self, status: &str, done: bool) -> Value {
        let mut response = json!({"id": "resp_1", "object": "response", "created_at": CREATED,
            "model": self.model, "status": status, "error": null, "output": [], "usage": null,
            "parallel_tool_calls": true, "tool_choice": "auto", "tools": []});
        if let Some(mark) = &self.mark {
            response["id"] = json!(format!("resp_{mark}"));
        }
        if done {
            response["output"] = json!([self.response_item()]);
            if let (Some(mark), Some(items)) = (&self.mark, response["output"].as_array_mut()) {
                items.insert(
                    0,
                    json!({"type": "reasoning", "id": format!("rs_{mark}"),
                    "encrypted_content": format!("enc_{mark}"), "summary": []}),
                );
            }
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
}
