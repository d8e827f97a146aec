"""Asks the same questions with the real SDKs through cutover and directly, and compares the answers.

Two comparisons for each call: what the SDK made of the answer, and the bytes of its body. Prints one
JSON object {name: {same, arm, direct, proxied}} and exits with 1 if any call differs. The providers
must answer the same question with the same bytes, as the stand-ins of `cutover demo` do.

Environment:
  BASE_OPENAI, BASE_ANTHROPIC        the proxy, like http://127.0.0.1:8080/v1
  DIRECT_OPENAI, DIRECT_ANTHROPIC    the provider behind it
  CANARY_OPENAI, CANARY_ANTHROPIC    the provider behind the canary arm, if it is another one
  KEY_OPENAI, KEY_ANTHROPIC          what callers show (default "test"); DIRECT_KEY_... for the provider
  MODEL_CHAT, MODEL_EMBEDDING, MODEL_ANTHROPIC
  ALIAS, ALIAS_LEGACY, ALIAS_CANARY  a model's name for callers, and what each arm calls it; without
                                     them the calls with an alias are left out
  REPEAT                             how often each call is made, each time for another user (default 1)
  ONLY                               calls to make, like "chat.plain,messages.stream" (default all)
  IGNORE                             JSON keys that may differ, like "id,created"

A side whose two addresses are not set is left out.
"""

import collections
import functools
import json
import os
import re
import sys
import zlib

import anthropic
import httpx2 as httpx
import openai


class Tee(httpx.SyncByteStream):
    """Hands a body on piece by piece and keeps a copy of it."""

    def __init__(self, stream, pieces):
        self.stream = stream
        self.pieces = pieces

    def __iter__(self):
        for piece in self.stream:
            self.pieces.append(piece)
            yield piece

    def close(self):
        self.stream.close()


class Recorder(httpx.BaseTransport):
    """Keeps status, headers and body bytes of the last answer."""

    def __init__(self):
        self.transport = httpx.HTTPTransport()
        self.response = None
        self.pieces = []

    def handle_request(self, request):
        self.response, self.pieces = None, []
        response = self.transport.handle_request(request)
        response.stream = Tee(response.stream, self.pieces)
        self.response = response
        return response

    def body(self):
        data = b"".join(self.pieces)
        if self.response is not None and "gzip" in self.response.headers.get("content-encoding", ""):
            data = zlib.decompress(data, wbits=31)
        return data.decode("utf-8", "replace")


class Side:
    """One address, called through both SDKs without retries, which would hide failures."""

    def __init__(self, kind, base, key):
        self.recorder = Recorder()
        http = httpx.Client(transport=self.recorder, timeout=60)
        if kind == "openai":
            self.sdk = openai.OpenAI(base_url=base, api_key=key, max_retries=0, http_client=http)
        else:
            # This SDK adds the version to the path itself.
            base = base.rstrip("/").removesuffix("/v1")
            self.sdk = anthropic.Anthropic(base_url=base, api_key=key, max_retries=0, http_client=http)

    def ask(self, call, user):
        """What came of one call, as plain JSON."""
        # A call that never reaches the wire must not be judged by the answer before it.
        self.recorder.response, self.recorder.pieces = None, []
        try:
            outcome = {"parsed": call(self.sdk, user)}
        except (openai.APIError, anthropic.APIError, httpx.HTTPError, ValueError) as error:
            outcome = {"error": type(error).__name__, "message": str(error)}
        response = self.recorder.response
        outcome["status"] = response.status_code if response is not None else None
        outcome["type"] = response.headers.get("content-type") if response is not None else None
        outcome["body"] = self.recorder.body()
        return outcome

    def arm(self):
        response = self.recorder.response
        return response.headers.get("x-cutover-arm") if response is not None else None


def dump(model):
    return model.model_dump(mode="json")


def question(user):
    return [{"role": "user", "content": f"A question of {user}: what is new?"}]


CHAT = os.environ.get("MODEL_CHAT", "gpt-test")
EMBEDDING = os.environ.get("MODEL_EMBEDDING", "embed-test")
CLAUDE = os.environ.get("MODEL_ANTHROPIC", "claude-test")


WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CHAT_TOOLS = [{"type": "function", "function": WEATHER}]
RESPONSE_TOOLS = [{"type": "function", "strict": False, **WEATHER}]
MESSAGE_TOOLS = [
    {"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
]


def chat_plain(sdk, user, model=CHAT):
    raw = sdk.chat.completions.with_raw_response.create(model=model, messages=question(user), user=user)
    return dump(raw.parse())


def chat_stream(sdk, user, model=CHAT):
    with sdk.chat.completions.create(model=model, messages=question(user), user=user, stream=True) as events:
        return [dump(event) for event in events]


def chat_tools(sdk, user):
    answer = sdk.chat.completions.create(model=CHAT, messages=question(user), user=user, tools=CHAT_TOOLS)
    json.loads(answer.choices[0].message.tool_calls[0].function.arguments)
    return dump(answer)


def chat_tools_helper(sdk, user):
    with sdk.chat.completions.stream(
        model=CHAT, messages=question(user), user=user, tools=CHAT_TOOLS
    ) as stream:
        kinds = [event.type for event in stream]
        return {"kinds": kinds, "answer": dump(stream.get_final_completion())}


def responses_plain(sdk, user, model=CHAT):
    return dump(sdk.responses.create(model=model, input=f"A question of {user}", user=user))


def responses_stream(sdk, user, model=CHAT):
    with sdk.responses.create(model=model, input=f"A question of {user}", user=user, stream=True) as events:
        return [dump(event) for event in events]


def responses_helper(sdk, user):
    with sdk.responses.stream(model=CHAT, input=f"A question of {user}", user=user) as stream:
        kinds = [event.type for event in stream]
        return {"kinds": kinds, "answer": dump(stream.get_final_response())}


def responses_tools(sdk, user):
    with sdk.responses.create(
        model=CHAT, input=f"A question of {user}", user=user, tools=RESPONSE_TOOLS, stream=True
    ) as events:
        return [dump(event) for event in events]


def chat_stream_usage(sdk, user):
    options = {"include_usage": True}
    with sdk.chat.completions.create(
        model=CHAT, messages=question(user), user=user, stream=True, stream_options=options
    ) as events:
        return [dump(event) for event in events]


def embeddings(sdk, user):
    return dump(sdk.embeddings.create(model=EMBEDDING, input=["one", user], user=user, encoding_format="float"))


def models(sdk, _user):
    return [dump(model) for model in sdk.models.list()]


def messages_plain(sdk, user, model=CLAUDE):
    raw = sdk.messages.with_raw_response.create(
        model=model, max_tokens=100, messages=question(user), metadata={"user_id": user}
    )
    return dump(raw.parse())


def messages_stream(sdk, user, model=CLAUDE):
    with sdk.messages.create(
        model=model, max_tokens=100, messages=question(user), metadata={"user_id": user}, stream=True
    ) as events:
        return [dump(event) for event in events]


def messages_helper(sdk, user):
    with sdk.messages.stream(
        model=CLAUDE, max_tokens=100, messages=question(user), metadata={"user_id": user}
    ) as stream:
        text = "".join(stream.text_stream)
        return {"text": text, "message": dump(stream.get_final_message())}


def messages_tools(sdk, user):
    with sdk.messages.stream(
        model=CLAUDE,
        max_tokens=100,
        messages=question(user),
        metadata={"user_id": user},
        tools=MESSAGE_TOOLS,
    ) as stream:
        kinds = [event.type for event in stream]
        return {"kinds": kinds, "message": dump(stream.get_final_message())}


CALLS = {
    "openai": {
        "chat.plain": chat_plain,
        "chat.stream": chat_stream,
        "chat.stream-usage": chat_stream_usage,
        "chat.tools": chat_tools,
        "chat.tools-helper": chat_tools_helper,
        "responses.plain": responses_plain,
        "responses.stream": responses_stream,
        "responses.helper": responses_helper,
        "responses.tools": responses_tools,
        "embeddings": embeddings,
        "models": models,
    },
    "anthropic": {
        "messages.plain": messages_plain,
        "messages.stream": messages_stream,
        "messages.helper": messages_helper,
        "messages.tools": messages_tools,
    },
}

# The stand-ins fail as the model's name says. These both arms refuse alike: the SDK must raise the same.
ERRORS = {
    "openai": {
        "error.bad-request": functools.partial(chat_plain, model="fault-400"),
        "error.no-such-model": functools.partial(chat_stream, model="fault-404-model"),
        "error.too-large": functools.partial(responses_plain, model="fault-413"),
        "error.rate-limited": functools.partial(chat_plain, model="fault-429"),
        "error.server": functools.partial(chat_stream, model="fault-500"),
    },
    "anthropic": {
        "error.bad-request": functools.partial(messages_plain, model="fault-400"),
        "error.overloaded": functools.partial(messages_stream, model="fault-529"),
    },
}

# Asked by the callers' name; the arm itself is asked by its own name for it.
ALIASED = {
    "openai": {
        "alias.chat-plain": chat_plain,
        "alias.chat-stream": chat_stream,
        "alias.responses-plain": responses_plain,
        "alias.responses-stream": responses_stream,
    },
    "anthropic": {
        "alias.messages-plain": messages_plain,
        "alias.messages-stream": messages_stream,
    },
}
ALIAS = os.environ.get("ALIAS")


def masked(outcome, ignored):
    """The outcome without the values of ignored keys, in the parsed answer and in the bytes."""
    text = json.dumps(outcome, sort_keys=True)
    for key in ignored:
        # In the bytes the quotes are themselves quoted.
        text = re.sub(rf'(\\?"){key}\1:\s*(\\?"[^"\\]*\\?"|[0-9.]+|null)', rf"\1{key}\1:_", text)
    return text


def side_of(kind, role):
    base = os.environ.get(f"{role}_{kind.upper()}")
    key = os.environ.get(f"KEY_{kind.upper()}", "test")
    if role != "BASE":
        key = os.environ.get(f"{role}_KEY_{kind.upper()}", key)
    return Side(kind, base, key) if base else None


def named_models(value):
    """Every value of a key called model, wherever it stands."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key == "model" and member is not None:
                yield member
            yield from named_models(member)
    elif isinstance(value, list):
        for member in value:
            yield from named_models(member)


def is_same(name, answer, expected, ignored):
    """True if the call through the proxy came out as the direct one, and as its name says it must."""
    if name.startswith("error."):
        return "error" in answer and answer["status"] >= 400 and masked(answer, ignored) == masked(expected, ignored)
    # Two failures that look alike prove nothing.
    if "parsed" not in answer or answer["status"] != 200:
        return False
    if name.startswith("alias."):
        models = set(named_models(answer["parsed"]))
        return models == {ALIAS} and masked(answer, [*ignored, "model"]) == masked(expected, [*ignored, "model"])
    return masked(answer, ignored) == masked(expected, ignored)


def calls_of(kind):
    """Name, call through the proxy, and the same call to each arm."""
    for name, call in {**CALLS[kind], **ERRORS[kind]}.items():
        yield name, call, {"legacy": call, "canary": call}
    for name, call in ALIASED[kind].items() if ALIAS else ():
        direct = {arm: functools.partial(call, model=os.environ[f"ALIAS_{arm.upper()}"]) for arm in ("legacy", "canary")}
        yield name, functools.partial(call, model=ALIAS), direct


def main():
    repeat = int(os.environ.get("REPEAT", "1"))
    ignored = [key for key in os.environ.get("IGNORE", "").split(",") if key]
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    results, arms = {}, collections.Counter()
    for kind in CALLS:
        proxied, direct, canary = (side_of(kind, role) for role in ("BASE", "DIRECT", "CANARY"))
        if proxied is None or direct is None:
            continue
        for name, call, direct_calls in calls_of(kind):
            if only and name not in only:
                continue
            for number in range(repeat):
                user = f"user-{number}"
                answer = proxied.ask(call, user)
                arm = proxied.arm()
                arms[f"{kind} {arm}"] += 1
                by_canary = canary is not None and arm == "canary"
                reference = canary if by_canary else direct
                expected = reference.ask(direct_calls["canary" if by_canary else "legacy"], user)
                same = is_same(name, answer, expected, ignored)
                label = f"{kind}.{name}" + (f"/{number}" if repeat > 1 else "")
                results[label] = {"same": same, "arm": arm, "direct": expected, "proxied": answer}
    json.dump(results, sys.stdout, indent=1)
    print()
    different = [name for name, result in results.items() if not result["same"]]
    print(f"{len(results)} calls, {len(different)} differ; by arm: {dict(arms)}", file=sys.stderr)
    for name in different:
        print(f"differs: {name}", file=sys.stderr)
    # No call at all is no proof either.
    return 1 if different or not results else 0


if __name__ == "__main__":
    sys.exit(main())
