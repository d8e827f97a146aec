// The two arms side by side, and the guards with their evidence.

import { attr, badge, el, keyed, say } from "./dom.js";
import { about, costOfAnswer, count, dollars, evidence, millis, percent, span, speed, verdictOf } from "./words.js";

const perThousand = (arm) => {
  const each = costOfAnswer(arm);
  return each === null ? null : each * 1000;
};
const streamSpeed = (arm) => (arm.tpot_ms.p50 > 0 ? 1000 / arm.tpot_ms.p50 : null);
const room = (arm) => arm.headroom?.requests ?? arm.headroom?.tokens;

// Name, what is shown of an arm, what is compared, and whether less is better.
const ROWS = [
  ["Requests", (arm) => count(arm.requests), null, null, (arm) => `${count(arm.under_way)} under way`],
  ["Error rate", (arm) => percent(arm.error_rate), (arm) => arm, "errors", (arm) => `${count(arm.errors)} failed`],
  ["Masked by failover", (arm) => count(arm.masked), null, null],
  ["Rate limited (429)", (arm) => count(arm.rate_limited), null, null],
  ["Latency p50", (arm) => millis(arm.latency_ms.p50), (arm) => arm.latency_ms.p50, "less"],
  ["Latency p99", (arm) => millis(arm.latency_ms.p99), (arm) => arm.latency_ms.p99, "less"],
  ["First token p50", (arm) => millis(arm.ttft_ms.p50), (arm) => arm.ttft_ms.p50, "less"],
  ["First token p99", (arm) => millis(arm.ttft_ms.p99), (arm) => arm.ttft_ms.p99, "less"],
  ["Stream tokens/s p50", (arm) => speed(streamSpeed(arm)), streamSpeed, "more"],
  ["Answer tokens/s p50", (arm) => speed(arm.tokens_per_s.p50), (arm) => arm.tokens_per_s.p50, "more"],
  ["Cost per 1,000 answers", (arm) => dollars(perThousand(arm)), perThousand, "cheaper"],
  ["Cost so far", (arm) => dollars(arm.cost_usd), null, null, (arm) => unpriced(arm)],
  ["Cached input tokens", (arm) => percent(arm.cache_hit_share), null, null],
  ["Rate limit left", (arm) => percent(room(arm)?.share), null, null],
  ["Breaker", (arm) => arm.breaker, null, null],
];

const OPTIONAL = ["Cached input tokens", "Rate limit left", "Cost so far", "Cost per 1,000 answers"];

function unpriced(arm) {
  const unknown = arm.unpriced + arm.no_usage;
  return unknown > 0 ? `${count(unknown)} of unknown cost` : "";
}

/** Words and tone of the canary's difference to legacy. */
function difference(legacy, canary, sense, isKnown) {
  if (legacy == null || canary == null) return { text: "–", tone: null };
  if (sense === "errors") return errorDifference(legacy, canary);
  if (legacy === 0) return { text: "–", tone: null };
  const ratio = canary / legacy - 1;
  if (Math.abs(ratio) < 0.01) return { text: "same", tone: null };
  const isBetter = sense === "more" ? ratio > 0 : ratio < 0;
  const words = { less: ["faster", "slower"], more: ["faster", "slower"], cheaper: ["cheaper", "dearer"] };
  const word = words[sense][isBetter ? 0 : 1];
  const text = `${Math.abs(ratio * 100).toFixed(0)}% ${word}`;
  return { text, tone: !isKnown ? null : isBetter ? "go" : "stop" };
}

/** In percentage points; coloured only where chance alone would seldom do that. */
function errorDifference(legacy, canary) {
  if (legacy.error_rate == null || canary.error_rate == null) return { text: "–", tone: null };
  const points = (canary.error_rate - legacy.error_rate) * 100;
  if (Math.abs(points) < 0.005) return { text: "same", tone: null };
  const all = legacy.requests + canary.requests;
  const rate = (legacy.errors + canary.errors) / all;
  const chance = Math.sqrt(rate * (1 - rate) * (1 / legacy.requests + 1 / canary.requests)) * 100;
  const text = `${Math.abs(points).toFixed(2)} points ${points > 0 ? "more" : "fewer"}`;
  if (Math.abs(points) < 2.6 * chance) return { text: `${text}, may be chance`, tone: null };
  return { text, tone: points > 0 ? "stop" : "go" };
}

export function makeArms() {
  const body = el("tbody");
  const head = (name, arm) =>
    el("th", { scope: "col" }, arm ? el("span", { class: `dot ${arm}`, "aria-hidden": "true" }) : null, name);
  const table = el(
    "table",
    { class: "arms" },
    el("caption", { class: "unseen" }, "Both arms side by side"),
    el("thead", {}, el("tr", {}, el("td"), head("legacy", "legacy"), head("canary", "canary"), head("difference"))),
    body,
  );
  const note = el("p", { class: "muted small" });
  return { node: el("div", {}, table, note), body, note };
}

export function showArms(arms, rollout, status) {
  const { legacy, canary } = rollout.arms;
  // What neither arm has says nothing.
  const isSaid = ([name, text]) =>
    !OPTIONAL.includes(name) || [legacy, canary].some((arm) => !["–", "0%"].includes(text(arm)));
  // The slowest of a hundred are known only after many hundreds. While the share changed within the window,
  // each arm has most of its requests at another time of it, and one bad minute can be all of the difference.
  const least = Math.min(legacy.requests, canary.requests);
  const isSteady = Date.now() - new Date(rollout.stage.since).getTime() >= status.window_s * 1000;
  const isKnown = (name) => (name.includes("p99") ? least >= 1000 && isSteady : least >= 100);
  keyed(
    arms.body,
    ROWS.filter(isSaid),
    ([name]) => name,
    ([name]) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td"), el("td"), el("td", { class: "difference" })),
    (row, [name, text, value, sense, note]) => {
      const cells = row.children;
      for (const [cell, arm] of [[cells[1], legacy], [cells[2], canary]]) {
        if (cell.children.length === 0) cell.append(el("span"), el("small"));
        say(cell.children[0], text(arm));
        say(cell.children[1], note?.(arm) ?? "");
      }
      if (!value) return;
      const { text: said, tone } = difference(value(legacy), value(canary), sense, isKnown(name));
      say(cells[3], said);
      attr(cells[3], "data-tone", tone);
    },
  );
  const window = `Counts since this rollout began; times of the last ${span(status.window_s * 1000)}.`;
  say(arms.note, isSteady ? window : `${window} The share changed within them, so p99 may mirror different minutes; the guards compare like with like.`);
}

export function makeGuards() {
  const list = el("ul", { class: "guards" });
  const note = el("p", { class: "muted small", hidden: true }, "While the canary gets no traffic there is no new evidence; this is what was known before.");
  return { node: el("div", {}, note, list), list, note };
}

const isShare = (name) => !name.includes("latency") && !name.includes("ttft");
const NAMES = {
  "error-rate": "Error rate",
  "latency-p99": "Latency p99",
  "latency-p50": "Latency p50",
  "ttft-p99": "First token p99",
  "ttft-p50": "First token p50",
  "rate-limited": "Rate limited",
  rejected: "Rejected requests",
};

/** A bar with a name and words for its value. */
function bar(name) {
  return el(
    "div",
    { class: "bar-row" },
    el("span", { class: "bar-name" }, name),
    el("div", { class: "track", role: "meter", "aria-valuemin": 0, "aria-valuemax": 100 }, el("div", { class: "fill" })),
    el("span", { class: "bar-text" }),
  );
}

function showBar(node, label, share, text, tone) {
  const [, track, words] = node.children;
  const filled = Math.min(1, Math.max(0, share ?? 0));
  attr(track, "aria-label", label);
  attr(track, "aria-valuenow", Math.round(filled * 100));
  attr(track, "aria-valuetext", text);
  track.firstElementChild.style.width = `${(filled * 100).toFixed(1)}%`;
  attr(track.firstElementChild, "data-tone", tone);
  say(words, text);
}

function makeGuard() {
  return el(
    "li",
    { class: "guard" },
    el("div", { class: "guard-head" }, el("h4"), el("span", { class: "badge" })),
    bar("evidence"),
    bar("value"),
    el("p", { class: "muted small" }),
  );
}

// Evidence multiplies, so equal steps of the bar are equal factors.
function progress({ evidence: have, needed }) {
  if (!(needed > 1)) return have > 0 ? 1 : 0;
  return have <= 1 ? 0 : Math.log(have) / Math.log(needed);
}

function showGuard(node, guard, isOff) {
  const [head, proof, value, words] = node.children;
  const verdict = verdictOf(guard.verdict);
  const name = NAMES[guard.name] ?? guard.name;
  say(head.children[0], name);
  badge(head.children[1], verdict.icon, verdict.word, verdict.tone);
  const isMute = guard.verdict === "no-data" || guard.verdict === "not-applicable";
  const towards = guard.verdict === "harm" ? "harm" : "promotion";
  const share = progress(guard);
  const shown = `${evidence(guard.evidence)} of ${evidence(guard.needed)}`;
  const tone = guard.verdict === "harm" ? "stop" : share >= 1 ? "go" : "calm";
  proof.hidden = isMute;
  showBar(proof, `${name}: evidence towards ${towards}`, share, shown, tone);
  const unit = isShare(guard.name) ? percent : millis;
  const isMeasured = guard.value != null && guard.limit != null;
  value.hidden = !isMeasured;
  if (isMeasured) {
    const used = guard.limit > 0 ? guard.value / guard.limit : guard.value > 0 ? 1 : 0;
    const text = `${unit(guard.value)} of ${unit(guard.limit)}`;
    showBar(value, `${name}: value against its limit`, used, text, used > 1 ? "stop" : used > 0.85 ? "warn" : "calm");
  }
  const said = isOff && guard.verdict === "undecided" ? "" : guardWords(guard);
  say(words, said);
  words.hidden = said === "";
}

function guardWords(guard) {
  if (guard.verdict === "undecided") {
    if (guard.requests_needed == null) return "too early to tell, or not converging at these rates";
    const eta = guard.eta_s == null ? "" : `, ~${about(guard.eta_s * 1000)} at this rate`;
    return `needs about ${count(Number(guard.requests_needed.toPrecision(2)))} more requests${eta}`;
  }
  // Value, limit and evidence are in the bars already.
  return guard.verdict === "healthy" ? "" : guard.explanation;
}

export function showGuards(guards, rollout) {
  const isOff = ["tripped", "rolled-back"].includes(rollout.state);
  guards.note.hidden = !isOff;
  keyed(guards.list, rollout.guards, (guard) => guard.name, makeGuard, (node, guard) => showGuard(node, guard, isOff));
}

