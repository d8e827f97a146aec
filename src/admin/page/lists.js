// The decision list and the recent failures.

import { attr, badge, el, getJson, keyed, say } from "./dom.js";
import { clock, count, evidence, kindOf, millis, percent } from "./words.js";

const DECISIONS_AT_ONCE = 20;
const FAILURES = 20;
/** Shown before more are asked for. */
const FAILURES_AT_FIRST = 8;

const fraction = (weight) => (typeof weight === "string" ? weight : percent(weight));

export class Decisions {
  constructor(rollout) {
    this.rollout = rollout;
    this.rows = [];
    this.list = el("ol", { class: "decisions" });
    this.more = el("button", { class: "quiet", type: "button", hidden: true, on: { click: () => this.older() } }, "Show older");
    this.empty = el("p", { class: "muted", hidden: true }, "No decision yet: the first one starts the first stage.");
    this.fault = el("p", { class: "fault", hidden: true });
    this.node = el("div", {}, this.empty, this.list, this.fault, this.more);
  }

  async load() {
    await this.get("");
  }

  async older() {
    await this.get(`&before=${this.rows.at(-1).id}`);
  }

  async get(before) {
    try {
      const name = encodeURIComponent(this.rollout);
      const path = `api/v1/decisions?rollout=${name}&limit=${DECISIONS_AT_ONCE}${before}`;
      const { decisions } = await getJson(path);
      this.fault.hidden = true;
      this.add(decisions);
      const isOlder = before !== "" || this.rows.length <= DECISIONS_AT_ONCE;
      if (isOlder) this.more.hidden = decisions.length < DECISIONS_AT_ONCE;
    } catch (failed) {
      say(this.fault, `The decisions cannot be read: ${failed.message}`);
      this.fault.hidden = false;
    }
  }

  add(rows) {
    const all = new Map(this.rows.map((row) => [row.id, row]));
    for (const row of rows) if (row.rollout === this.rollout) all.set(row.id, row);
    this.rows = [...all.values()].sort((a, b) => b.id - a.id);
    this.empty.hidden = this.rows.length > 0;
    keyed(this.list, this.rows, (row) => row.id, makeDecision, () => {});
  }
}

function makeDecision(row) {
  const kind = kindOf(row.kind);
  const from = fraction(row.weight_from);
  const to = fraction(row.weight_to);
  const parts = row.reason.split(" · ");
  const shift = from === to ? `at ${to}` : `${from} → ${to}`;
  const summary = el(
    "summary",
    {},
    badge2("kind", kind),
    el("span", { class: "shift-text" }, shift),
    el("span", { class: "why" }, parts.slice(0, 2).join(" · ")),
    el("time", { datetime: row.at }, clock(row.at)),
  );
  const list = el("ul", { class: "parts" }, ...parts.map((part) => el("li", {}, part)));
  const by = { operator: "an operator", controller: "the controller", config: "the configuration" };
  const facts = [
    ["Taken by", by[row.by] ?? row.by],
    ["Stage", String(row.stage + 1)],
    ["Weight", from === to ? `stays ${to}` : `from ${from} to ${to}`],
    ...evidenceFacts(row.evidence ?? {}),
    ["Time", row.at],
    ["Decision", String(row.id)],
  ];
  const dl = el("dl", { class: "facts" });
  for (const [name, value] of facts) dl.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  return el("li", {}, el("details", {}, summary, list, dl));
}

function badge2(className, { icon, word, tone }) {
  const node = el("span", { class: `badge ${className}` });
  badge(node, icon, word, tone);
  return node;
}

function evidenceFacts(seen) {
  const facts = [];
  if (typeof seen !== "object") return [["Evidence", String(seen)]];
  if (seen.guard) facts.push(["Guard", seen.guard]);
  if (seen.needed > 0) {
    facts.push(["Evidence", `${evidence(seen.evidence)}, needs ${evidence(seen.needed)}`]);
  }
  for (const arm of ["canary", "legacy"]) {
    const requests = seen[`${arm}_requests`];
    if (requests > 0) {
      const errors = seen[`${arm}_errors`];
      facts.push([`Of ${arm}`, `${count(errors)} of ${count(requests)} requests failed (${percent(errors / requests)})`]);
    }
  }
  return facts;
}

const COLUMNS = ["time", "arm", "outcome", "status", "model", "took", "request id of the provider"];

export class Failures {
  constructor(rollout) {
    this.rollout = rollout;
    this.body = el("tbody");
    this.table = el(
      "table",
      { class: "failures" },
      el("caption", { class: "unseen" }, "Recent failures, newest first"),
      el("thead", {}, el("tr", {}, ...COLUMNS.map((name) => el("th", { scope: "col" }, name)))),
      this.body,
    );
    this.note = el("p", { class: "muted" });
    this.shown = FAILURES_AT_FIRST;
    this.more = el("button", { class: "quiet", type: "button", hidden: true, on: { click: () => this.all() } }, "Show more");
    const scroll = el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Recent failures" }, this.table);
    this.node = el("div", {}, this.note, scroll, this.more);
  }

  all() {
    this.shown = FAILURES;
    this.load();
  }

  async load() {
    try {
      const name = encodeURIComponent(this.rollout);
      const path = `api/v1/requests?rollout=${name}&failed=true&limit=${FAILURES}`;
      const { requests, note } = await getJson(path);
      this.table.hidden = requests.length === 0;
      say(this.note, note ?? (requests.length === 0 ? "No request has failed." : ""));
      this.more.hidden = requests.length <= this.shown;
      keyed(this.body, requests.slice(0, this.shown), (row) => row.id, makeFailure, () => {});
    } catch (failed) {
      this.table.hidden = true;
      say(this.note, `Failures cannot be read: ${failed.message}`);
    }
  }
}

function makeFailure(row) {
  const role = row.role === "live" ? "" : row.role;
  const tail = [role, row.attempt > 1 ? `attempt ${row.attempt}` : ""].filter(Boolean).join(", ");
  const outcome = el("td", {}, el("span", { class: "outcome" }, row.outcome));
  if (row.blame && row.blame !== "arm") outcome.append(el("small", {}, ` blame: ${row.blame}`));
  const arm = el("td", {}, el("span", { class: `dot ${row.arm}`, "aria-hidden": "true" }), row.arm ?? "–");
  if (tail) arm.append(el("small", {}, ` ${tail}`));
  const cells = [
    el("td", {}, el("time", { datetime: row.at }, clock(row.at))),
    arm,
    outcome,
    el("td", {}, row.status == null ? "–" : String(row.status)),
    el("td", { class: "name" }, row.model ?? "–"),
    el("td", {}, took(row)),
    el("td", { class: "name" }, row.upstream_request_id ?? "–"),
  ];
  for (const [place, cell] of cells.entries()) attr(cell, "data-label", COLUMNS[place]);
  return el("tr", {}, ...cells);
}

function took(row) {
  const whole = millis(row.latency_ms);
  return row.ttft_ms == null ? whole : `${whole}, first token ${millis(row.ttft_ms)}`;
}
