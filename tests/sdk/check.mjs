// Asks the same questions with OpenAI's SDK for Node through cutover and directly, and compares the answers.
//
// Prints one JSON object {name: {same, arm}} and exits with 1 if any call differs. Environment as in
// check.py: BASE_OPENAI, DIRECT_OPENAI, CANARY_OPENAI, KEY_OPENAI, CANARY_KEY_OPENAI, REPEAT.

import OpenAI from "openai";

const { BASE_OPENAI, DIRECT_OPENAI, CANARY_OPENAI, KEY_OPENAI = "test", CANARY_KEY_OPENAI = KEY_OPENAI } = process.env;
const repeat = Number(process.env.REPEAT ?? "1");

const tool = {
  name: "weather",
  description: "The weather of a city.",
  parameters: { type: "object", properties: { city: { type: "string" } } },
};
const messages = (user) => [{ role: "user", content: `A question of ${user}: what is new?` }];

async function all(events) {
  const list = [];
  for await (const event of events) list.push(event);
  return list;
}

const calls = {
  "chat.plain": (sdk, user) => sdk.chat.completions.create({ model: "gpt-test", messages: messages(user), user }),
  "chat.stream": async (sdk, user) =>
    all(await sdk.chat.completions.create({ model: "gpt-test", messages: messages(user), user, stream: true })),
  "chat.tools": async (sdk, user) => {
    const runner = sdk.chat.completions.stream({
      model: "gpt-test",
      messages: messages(user),
      user,
      tools: [{ type: "function", function: tool }],
    });
    return await runner.finalChatCompletion();
  },
  "responses.plain": (sdk, user) => sdk.responses.create({ model: "gpt-test", input: `A question of ${user}`, user }),
  "responses.stream": async (sdk, user) =>
    all(await sdk.responses.create({ model: "gpt-test", input: `A question of ${user}`, user, stream: true })),
  embeddings: (sdk, user) =>
    sdk.embeddings.create({ model: "embed-test", input: ["one", user], user, encoding_format: "float" }),
  "error.bad-request": (sdk, user) =>
    sdk.chat.completions.create({ model: "fault-400", messages: messages(user), user }),
  "error.server": async (sdk, user) =>
    all(await sdk.chat.completions.create({ model: "fault-500", messages: messages(user), user, stream: true })),
};

/** What came of one call, and which arm answered it. */
async function ask(base, key, call, user) {
  let arm = null;
  const sdk = new OpenAI({
    baseURL: base,
    apiKey: key,
    maxRetries: 0,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      arm = response.headers.get("x-cutover-arm");
      return response;
    },
  });
  try {
    return { arm, parsed: JSON.parse(JSON.stringify(await call(sdk, user))), seen: () => arm };
  } catch (error) {
    return { arm, error: `${error.constructor.name} ${error.status} ${error.message}`, seen: () => arm };
  }
}

const results = {};
for (const [name, call] of Object.entries(calls)) {
  for (let number = 0; number < repeat; number++) {
    const user = `user-${number}`;
    const answer = await ask(BASE_OPENAI, KEY_OPENAI, call, user);
    const arm = answer.seen();
    const direct =
      arm === "canary"
        ? await ask(CANARY_OPENAI, CANARY_KEY_OPENAI, call, user)
        : await ask(DIRECT_OPENAI, KEY_OPENAI, call, user);
    const came = (outcome) => JSON.stringify(outcome.parsed ?? outcome.error);
    const asItMust = name.startsWith("error.") ? answer.error?.includes("Error 4") || answer.error?.includes("Error 5") : answer.parsed;
    const same = Boolean(asItMust) && came(answer) === came(direct);
    results[`${name}/${number}`] = { same, arm, ...(same ? {} : { proxied: came(answer), direct: came(direct) }) };
  }
}
console.log(JSON.stringify(results, null, 1));
const different = Object.keys(results).filter((name) => !results[name].same);
console.error(`${Object.keys(results).length} calls, ${different.length} differ`);
for (const name of different) console.error(`differs: ${name}`);
process.exit(different.length > 0 || Object.keys(results).length === 0 ? 1 : 0);
