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
  REPEAT                             how often each call is made, each time for another user (default 1)
  ONLY                               calls to make, like "chat.plain,messages.stream" (default all)
  IGNORE                             JSON keys that may differ, like "id,created"

A side whose two addresses are not set is left out.
"""

import collections
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


def chat_plain(sdk, user):
    raw = sdk.chat.completions.with_raw_response.create(model=CHAT, messages=question(user), user=user)
    return dump(raw.parse())


def chat_stream(sdk, user):
    with sdk.chat.completions.create(model=CHAT, messages=question(user), user=user, stream=True) as events:
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


def messages_plain(sdk, user):
    raw = sdk.messages.with_raw_response.create(
        model=CLAUDE, max_tokens=100, messages=question(user), metadata={"user_id": user}
    )
    return dump(raw.parse())


def messages_stream(sdk, user):
    with sdk.messages.create(
        model=CLAUDE, max_tokens=100, messages=question(user), metadata={"user_id": user}, stream=True
    ) as events:
        return [dump(event) for event in events]


def messages_helper(sdk, user):
    with sdk.messages.stream(
        model=CLAUDE, max_tokens=100, messages=question(user), metadata={"user_id": user}
    ) as stream:
        text = "".join(stream.text_stream)
        return {"text": text, "message": dump(stream.get_final_message())}


CALLS = {
    "openai": {
        "chat.plain": chat_plain,
        "chat.stream": chat_stream,
        "chat.stream-usage": chat_stream_usage,
        "embeddings": embeddings,
        "models": models,
    },
    "anthropic": {
        "messages.plain": messages_plain,
        "messages.stream": messages_stream,
        "messages.helper": messages_helper,
    },
}


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


def main():
    repeat = int(os.environ.get("REPEAT", "1"))
    ignored = [key for key in os.environ.get("IGNORE", "").split(",") if key]
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    results, arms = {}, collections.Counter()
    for kind, calls in CALLS.items():
        proxied, direct, canary = (side_of(kind, role) for role in ("BASE", "DIRECT", "CANARY"))
        if proxied is None or direct is None:
            continue
        for name, call in calls.items():
            if only and name not in only:
                continue
            for number in range(repeat):
                user = f"user-{number}"
                answer = proxied.ask(call, user)
                arm = proxied.arm()
                arms[f"{kind} {arm}"] += 1
                reference = canary if canary and arm == "canary" else direct
                expected = reference.ask(call, user)
                same = masked(answer, ignored) == masked(expected, ignored)
                label = f"{kind}.{name}" + (f"/{number}" if repeat > 1 else "")
                # Two failures that look alike prove nothing.
                same = same and "parsed" in answer and answer["status"] == 200
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
