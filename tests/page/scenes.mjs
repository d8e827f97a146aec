// What the page makes of states that are hard to bring about: its own files in a real browser, with a daemon
// whose every word is written here.
//
// Environment: CUTOVER_CHROMIUM. Fails with what is wrong.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const { CUTOVER_CHROMIUM = "/usr/bin/chromium" } = process.env;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const BASE = "http://cutover.test/";
const FILES = new URL("../../src/admin/page/", import.meta.url);
const TYPES = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
const say = (text) => console.error(`  ${text}`);

const times = { p50: 100, p99: 200 };
const arm = (more) => ({
  requests: 1000, under_way: 0, errors: 0, error_rate: 0, rate_limited: 0, rejected: 0, masked: 0, latency_ms: times,
  ttft_ms: times, tpot_ms: times, tokens_per_s: times, cost_usd: 10, unpriced: 0, no_usage: 0, breaker: "closed",
  cache_hit_share: null, headroom: null, ...more,
});
const rollout = (name, more) => ({
  name, state: "running", reason: "dwell", weight: 0.25, attempt: 1, guards: [], stages: [0.25, 0.5, 1],
  stage: { index: 1, of: 3, weight: 0.25, since: new Date().toISOString(), ladder: [0.25, 0.5, 1] },
  arms: { legacy: arm(), canary: arm() }, ...more,
});
const status = (rollouts, more) => ({
  version: "0", uptime_s: 1, window_s: 300, store: { kind: "sqlite", healthy: true, dropped_samples: 0 },
  config: { path: null, loaded_at: new Date().toISOString(), error: null }, budgets: [], alerts: [], rollouts, ...more,
});
const decision = (id) => ({
  id, at: new Date().toISOString(), rollout: "a", kind: "promote", weight_from: "5%", weight_to: "25%", stage: 0,
  by: "controller", reason: `reason ${id}`, evidence: {},
});
const chart = {
  at_ms: [], metrics: [], weight: { svg: "<svg xmlns='http://www.w3.org/2000/svg'/>", steps: [], decisions: [] },
};

const browser = await chromium.launch({ executablePath: CUTOVER_CHROMIUM, args: FLAGS });

/** The page with a stream of events that `tell` speaks through. `asked` counts what it asks for by path. */
async function opened(first, hash = "") {
  const page = await browser.newPage();
  page.setDefaultTimeout(10000);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.asked = [];
  page.decisions = [];
  page.orders = [];
  await page.addInitScript(() => {
    window.EventSource = class extends EventTarget {
      static OPEN = 1;
      static CLOSED = 2;
      readyState = 1;
      constructor() {
        super();
        window.stream = this;
      }
    };
  });
  await page.route("**/*", async (route) => {
    const request = route.request();
    const path = new URL(request.url()).pathname.slice(1);
    page.asked.push(path);
    if (path.startsWith("api/v1/rollouts/")) {
      // The test answers.
      page.orders.push({ path, answer: (code, body) => route.fulfill({ status: code, json: body }) });
    } else if (path === "api/v1/decisions") {
      await route.fulfill({ json: { decisions: page.decisions } });
    } else if (path === "api/v1/requests") {
      await route.fulfill({ json: { requests: [] } });
    } else if (path === "charts.json") {
      await route.fulfill({ json: chart });
    } else {
      const name = path === "" ? "index.html" : path.replace("assets/", "");
      await route.fulfill({ contentType: TYPES[name.split(".").at(-1)], body: readFileSync(new URL(name, FILES)) });
    }
  });
  page.tell = (kind, data) =>
    page.evaluate(([kind, data]) => {
      window.stream.dispatchEvent(new MessageEvent(kind, { data: JSON.stringify(data) }));
    }, [kind, data]);
  await page.goto(BASE + hash);
  await page.waitForFunction(() => window.stream);
  await page.tell("open");
  await page.tell("status", first);
  return page;
}

const shows = (locator, text) => locator.filter({ hasText: text }).first().waitFor();
const button = (page, name) => page.locator(".hero").getByRole("button", { name });
const dialog = (page) => page.getByRole("dialog");
const confirm = (page) => page.locator("#dialog-confirm");
async function ordered(page, count) {
  while (page.orders.length < count) await page.waitForTimeout(10);
  return page.orders[count - 1];
}
async function closed(page) {
  assert.deepEqual(page.faults, []);
  await page.close();
}

say("an order to raise is asked again when the ground has moved");
{
  const page = await opened(status([rollout("a")]));
  await button(page, "Promote").click();
  await shows(dialog(page), "25% → 50%");
  await page.getByLabel("Reason").fill("go");
  await page.tell("status", status([rollout("a", { weight: 0.5, stage: { ...rollout("a").stage, index: 2, weight: 0.5 } })]));
  await confirm(page).click();
  await shows(page.getByRole("alert"), "It changed meanwhile");
  await shows(dialog(page), "50% → 100%");
  assert.equal(page.orders.length, 0);
  await confirm(page).click();
  assert.match((await ordered(page, 1)).path, /promote$/);

  say("a late answer does nothing to another question");
  await page.keyboard.press("Escape");
  await button(page, "Roll back").click();
  await page.getByLabel("Reason").fill("stop");
  await page.orders[0].answer(409, { error: { message: "too late for that" } });
  await shows(page.locator(".toast"), "Promote a: too late for that");
  assert.equal(await page.getByRole("alert").isVisible(), false);
  await confirm(page).click();
  await (await ordered(page, 2)).answer(200, { message: "rolled back" });
  await dialog(page).waitFor({ state: "hidden" });
  await shows(page.locator(".toast"), "Roll back a: rolled back");
  await closed(page);
}

say("each state has its commands, and resume says what it does");
{
  const cases = [
    ["tripped", "tripped; probes begin", ["Resume", "Promote", "Hold", "Set the weight", "Roll back"], "0% → 25%"],
    ["retreated", "retreated to 5% to find out", ["Resume", "Promote", "Hold", "Set the weight", "Roll back"], "0% → 25%"],
    ["retreated", "held by an operator: lunch", ["Resume", "Promote", "Set the weight", "Roll back"], "stays 0%"],
    ["held", "held by an operator: lunch", ["Resume", "Promote", "Set the weight", "Roll back"], "stays 0%"],
    ["rolled-back", "rolled back", ["Retry", "Hold", "Roll back", "Set the weight"], null],
    ["rolled-back", "held by an operator: lunch", ["Retry", "Resume", "Roll back", "Set the weight"], "stays 0%"],
  ];
  const page = await opened(status([rollout("a")]));
  for (const [state, reason, names, shift] of cases) {
    await page.tell("status", status([rollout("a", { state, reason, weight: 0 })]));
    const found = await page.locator(".hero .buttons button").allTextContents();
    assert.deepEqual(found, names.map((name) => `${name}…`), `${state}, ${reason}`);
    if (shift === null) continue;
    await button(page, "Resume").click();
    await shows(page.locator("#dialog-shift"), shift);
    await page.keyboard.press("Escape");
  }
  await closed(page);
}

say("a failing legacy shows beside a tripped canary, and nobody is said to answer who does not");
{
  const page = await opened(status([]));
  const notices = async (more, arms) => {
    const of = { legacy: arm({ breaker: arms[0] }), canary: arm({ breaker: arms[1] }) };
    await page.tell("status", status([rollout("a", { arms: of, ...more })]));
    return (await page.locator(".notice").allTextContents()).join("\n");
  };
  const tripped = await notices({ state: "tripped", reason: "tripped" }, ["open", "open"]);
  assert.match(tripped, /Connections to legacy fail/);
  assert.doesNotMatch(tripped, /Connections to canary|answers/);
  assert.match(await notices({}, ["open", "closed"]), /canary answers/);
  assert.doesNotMatch(await notices({}, ["open", "half-open"]), /answers/);

  say("alerts that do not arrive are told");
  const webhook = { webhook: "https://hooks.test", failed: 0, dropped: 0, last_error: null };
  await page.tell("status", status([rollout("a")], { alerts: [webhook] }));
  assert.equal(await page.locator(".notice").count(), 0);
  await page.tell("status", status([rollout("a")], { alerts: [{ ...webhook, dropped: 2, last_error: "it answered 500" }] }));
  await shows(page.locator(".notice"), /hooks\.test do not all arrive.*2 given up, it answered 500/);
  await closed(page);
}

say("an arm that fails is not a cheap one");
{
  const arms = { legacy: arm(), canary: arm({ errors: 200, rate_limited: 100, rejected: 100, cost_usd: 6 }) };
  const page = await opened(status([rollout("a", { arms })]));
  await shows(page.locator(".tile"), /Saved by the canary\$0\.00/);
  await shows(page.locator(".arms tr"), /Cost per 1,000 answers\$10\.00\$10\.00/);
  await closed(page);
}

say("what happened while the stream was broken is read again, and a backlog draws once");
{
  const page = await opened(status([rollout("a")]));
  const count = (path) => page.asked.filter((one) => one === path).length;
  while (count("charts.json") < 1) await page.waitForTimeout(10);
  page.decisions = [decision(7)];
  await page.tell("open");
  await shows(page.locator(".decisions"), "reason 7");
  while (count("charts.json") < 2) await page.waitForTimeout(10);
  for (let id = 8; id < 40; id += 1) await page.tell("decision", decision(id));
  await shows(page.locator(".decisions"), "reason 39");
  await page.waitForTimeout(1000);
  assert.ok(count("charts.json") < 12, `${count("charts.json")} times`);
  await closed(page);
}

say("an address that names no rollout keeps the one that is shown");
{
  const two = status([rollout("a"), rollout("b")]);
  const page = await opened(two, "#b");
  const shown = () => page.locator(".hero .name").textContent();
  assert.equal(await shown(), "b");
  await page.locator("#skip").focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  for (const hash of ["#main", "#100%", "#gone"]) {
    await page.evaluate((hash) => (location.hash = hash), hash);
    await page.tell("status", two);
    assert.equal(await shown(), "b", hash);
  }
  await closed(page);
}

await browser.close();
say("all is well");
