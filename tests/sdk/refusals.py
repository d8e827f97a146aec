"""Shows cutover's own refusals to the real SDKs: each must raise the error that the provider's own would raise.

Prints one JSON object {name: {error, status, kind, retry_after}} and exits with 1 if any call was answered.

Environment: BASE, the proxy, like http://127.0.0.1:8080/v1; KEY, what is shown as the API key.
"""

import json
import os
import sys

import anthropic
import openai

base, key = os.environ["BASE"], os.environ["KEY"]
ask = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 10}
# Without retries, which would wait until the rate lets them through.
openai_sdk = openai.OpenAI(base_url=base, api_key=key, max_retries=0)
# This SDK adds /v1 by itself.
anthropic_sdk = anthropic.Anthropic(
    base_url=base.removesuffix("/v1"), api_key=key, max_retries=0
)
calls = {
    "openai.chat": lambda: openai_sdk.chat.completions.create(model="gpt-4.1", **ask),
    "openai.chat.stream": lambda: openai_sdk.chat.completions.create(
        model="gpt-4.1", stream=True, **ask
    ),
    "openai.responses": lambda: openai_sdk.responses.create(model="gpt-4.1", input="hello"),
    "openai.models": openai_sdk.models.list,
    "anthropic.messages": lambda: anthropic_sdk.messages.create(model="claude-3", **ask),
}

results, answered = {}, False
for name, call in calls.items():
    try:
        call()
        answered = True
        print(f"{name} was answered", file=sys.stderr)
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        headers = error.response.headers
        results[name] = {
            "error": f"{type(error).__module__.split('.')[0]}.{type(error).__name__}",
            "status": error.status_code,
            "kind": headers.get("x-cutover-error"),
            "retry_after": headers.get("retry-after"),
            "text": str(error),
        }
print(json.dumps(results))
sys.exit(answered)
