// A migration to look at: two stand-in providers, callers that never stop, and the real daemon.

import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Chance that comes out the same each time. */
function chanceOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** A provider of chat completions. `errors` is the share of requests that fail. */
function provider({ name, seed, firstTokenMs, gapMs, errors }) {
  const chance = chanceOf(seed);
  const around = (median, sigma) => {
    const normal = Math.sqrt(-2 * Math.log(1 - chance())) * Math.cos(2 * Math.PI * chance());
    return median * Math.exp(sigma * normal);
  };
  const self = { name, errors, isDown: false, port: 0 };
  let number = 0;

  const serve = async (request, answer) => {
    let text = "";
    for await (const part of request) text += part;
    const asked = JSON.parse(text || "{}");
    const id = `req_${name.slice(0, 3)}_${(++number).toString(36).padStart(6, "0")}`;
    answer.setHeader("x-request-id", id);
    if (self.isDown || chance() < self.errors) {
      await wait(around(25, 0.3));
      const status = self.isDown || chance() < 0.7 ? 503 : 529;
      answer.writeHead(status, { "content-type": "application/json" });
      answer.end(JSON.stringify({ error: { message: "overloaded", type: "server_error" } }));
      return;
    }
    const tokens = Math.max(4, Math.round(around(24, 0.5)));
    const usage = { prompt_tokens: Math.round(around(380, 0.6)), completion_tokens: tokens };
    usage.total_tokens = usage.prompt_tokens + tokens;
    const first = around(firstTokenMs, 0.35);
    const head = { id, created: 1, model: asked.model };
    if (!asked.stream) {
      await wait(first + tokens * gapMs);
      answer.writeHead(200, { "content-type": "application/json" });
      const message = { role: "assistant", content: "word ".repeat(tokens) };
      const choices = [{ index: 0, message, finish_reason: "stop" }];
      answer.end(JSON.stringify({ ...head, object: "chat.completion", choices, usage }));
      return;
    }
    answer.writeHead(200, { "content-type": "text/event-stream" });
    const send = (choices, more = {}) =>
      answer.write(`data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", choices, ...more })}\n\n`);
    await wait(first);
    for (let token = 0; token < tokens; token += 1) {
      send([{ index: 0, delta: { content: "word " }, finish_reason: null }]);
      await wait(gapMs);
    }
    send([{ index: 0, delta: {}, finish_reason: "stop" }]);
    send([], { usage });
    answer.end("data: [DONE]\n\n");
  };

  const server = http.createServer((request, answer) => {
    serve(request, answer).catch(() => answer.destroy());
  });
  self.start = () =>
    new Promise((done) => {
      server.listen(0, "127.0.0.1", () => {
        self.port = server.address().port;
        done();
      });
    });
  self.stop = () => server.closeAllConnections() ?? server.close();
  return self;
}

function configOf(world) {
  const { legacy, canary, folder, port } = world;
  return `[proxy]
listen = "127.0.0.1:${port.proxy}"
drain = "2s"
[admin]
listen = "127.0.0.1:${port.admin}"
[store]
url = "sqlite:${join(folder, "cutover.db")}"
[arms.legacy]
base-url = "http://127.0.0.1:${legacy.port}/v1"
api-key = "env:LEGACY_KEY"
prices = { "gpt-5-mini" = { input = 0.25, output = 2.0 } }
[arms.canary]
base-url = "http://127.0.0.1:${canary.port}/v1"
api-key = "env:CANARY_KEY"
prices = { "gpt-5-mini" = { input = 0.12, output = 0.9 } }
[[rollout]]
name = "default"
warm-up = 1200
stages = [${world.stages.map(([weight, dwell]) => `{ weight = "${weight}", dwell = "${dwell}" }`).join(", ")}]
trip = { cooldown = "45s", max-per-day = 1 }
[rollout.guards]
error-rate = { max = "6%", max-ratio = 1.5, max-increase = "2%" }
latency-p99 = { max-ratio = 4.0 }
ttft-p99 = { max-ratio = 4.0 }
rate-limited = { max-increase = "3%" }
rejected = { max-increase = "3%" }
`;
}

/** Starts all of it; `binary` is the program. */
export async function start({ binary, stages, perSecond = 50 }) {
  const world = { folder: mkdtempSync(join(tmpdir(), "cutover-page-")), stages, port: { proxy: 0, admin: 0 } };
  world.legacy = provider({ name: "legacy", seed: 11, firstTokenMs: 190, gapMs: 5, errors: 0.004 });
  world.canary = provider({ name: "canary", seed: 12, firstTokenMs: 140, gapMs: 4, errors: 0.002 });
  await world.legacy.start();
  await world.canary.start();
  writeFileSync(join(world.folder, "cutover.toml"), configOf(world));
  const args = ["run", "--config", join(world.folder, "cutover.toml"), "--log-format", "json"];
  const env = { ...process.env, LEGACY_KEY: "sk-legacy", CANARY_KEY: "sk-canary" };
  const daemon = spawn(binary, args, { env, stdio: ["ignore", "ignore", "pipe"] });
  const ready = await new Promise((done, failed) => {
    let log = "";
    daemon.stderr.on("data", (part) => {
      log += part;
      const line = log.split("\n").find((one) => one.includes("ready") && one.includes("admin"));
      if (line) done(line);
    });
    daemon.on("exit", () => failed(new Error(log)));
  });
  const portAfter = (word) => Number(ready.slice(ready.indexOf(word)).match(/127\.0\.0\.1:(\d+)/)[1]);
  world.port = { proxy: portAfter("proxy"), admin: portAfter("admin") };
  world.url = `http://127.0.0.1:${world.port.admin}/`;

  const chance = chanceOf(5);
  const agent = new http.Agent({ keepAlive: true });
  let user = 0;
  const ask = () => {
    const body = JSON.stringify({
      model: "gpt-5-mini",
      stream: chance() < 0.6,
      user: `user-${++user}`,
      messages: [{ role: "user", content: "What is new?" }],
    });
    const headers = { "content-type": "application/json", authorization: "Bearer sk-client" };
    const options = { agent, port: world.port.proxy, path: "/v1/chat/completions", method: "POST", headers };
    const request = http.request(options, (answer) => answer.resume());
    request.on("error", () => {});
    request.end(body);
  };
  // More at some times than at others, as people are.
  let isStopped = false;
  (async () => {
    const began = Date.now();
    while (!isStopped) {
      const minutes = (Date.now() - began) / 60000;
      const rate = perSecond * (1 + 0.25 * Math.sin(minutes / 2.2) + 0.1 * Math.sin(minutes * 1.7));
      ask();
      await wait((-Math.log(1 - chance()) * 1000) / rate);
    }
  })();

  world.rollout = async () => (await (await fetch(`${world.url}api/v1/status`)).json()).rollouts[0];
  world.until = async (what, isIt, withinMs = 1200000) => {
    const end = Date.now() + withinMs;
    for (;;) {
      const rollout = await world.rollout();
      if (isIt(rollout)) return rollout;
      if (Date.now() > end) throw new Error(`never ${what}: ${rollout.state}, ${rollout.reason}`);
      await wait(200);
    }
  };
  world.stop = async () => {
    isStopped = true;
    const ended = new Promise((done) => daemon.once("exit", done));
    daemon.kill("SIGTERM");
    await ended;
    world.legacy.stop();
    world.canary.stop();
    agent.destroy();
  };
  return world;
}

export { wait };
