// One rollout: where it stands, why, and everything behind that.

import { Charts } from "./charts.js";
import { titleOf } from "./dialog.js";
import { attr, badge, el, keyed, say, sayMarked } from "./dom.js";
import { Decisions, Failures } from "./lists.js";
import { makeArms, makeGuards, showArms, showGuards } from "./tables.js";
import { clock, count, dollars, isHeldByHand, millis, percent, savings, stateOf } from "./words.js";

const FAILURES_EVERY_MS = 10000;

/** The commands that make sense where a rollout stands, the likeliest first. */
function commandsOf(rollout) {
  const commands = {
    "warming-up": ["promote", "hold", "weight", "rollback"],
    running: ["hold", "promote", "weight", "rollback"],
    held: ["resume", "promote", "weight", "rollback"],
    tripped: ["resume", "promote", "hold", "weight", "rollback"],
    retreated: ["resume", "promote", "hold", "weight", "rollback"],
    "rolled-back": ["retry", "hold", "rollback", "weight"],
    complete: ["hold", "weight", "rollback"],
    stopped: [],
  };
  const offered = commands[rollout.state] ?? ["hold", "resume", "promote", "weight", "rollback"];
  if (!isHeldByHand(rollout)) return offered;
  // What is held already is resumed.
  return [...new Set(offered.map((action) => (action === "hold" ? "resume" : action)))];
}

export class RolloutView {
  constructor(name, command) {
    this.name = name;
    this.pill = el("span", { class: "pill" });
    this.title = el("h2", {});
    this.line = el("p", { class: "line" });
    this.why = el("span", {});
    this.buttons = el("div", { class: "buttons" });
    this.command = command;
    this.split = makeSplit();
    this.ladder = el("ol", { class: "ladder", "aria-label": "Stages" });
    this.tiles = el("dl", { class: "tiles" });
    this.arms = makeArms();
    this.guards = makeGuards();
    this.charts = new Charts(name);
    this.decisions = new Decisions(name);
    this.failures = new Failures(name);
    this.node = this.layout();
    this.decisions.load();
    this.loadFailures();
  }

  layout() {
    const panel = (title, className, ...content) =>
      el("section", { class: `panel ${className}`, "aria-label": title }, el("h3", {}, title), ...content);
    const hero = el(
      "section",
      { class: "panel hero", "aria-label": `Rollout ${this.name}` },
      el("div", { class: "hero-top" }, el("p", { class: "what" }, this.pill, el("span", { class: "name" }, this.name)), this.buttons),
      this.title,
      this.line,
      this.split.node,
      this.ladder,
      el("p", { class: "why-text" }, el("b", {}, "Now: "), this.why),
    );
    return el(
      "div",
      { class: "rollout" },
      hero,
      this.tiles,
      this.charts.top,
      el("div", { class: "pair" }, panel("Both arms", "", this.arms.node), panel("Guards: proof that is needed to go on", "", this.guards.node)),
      this.charts.rest,
      panel("Decisions", "", this.decisions.node),
      panel("Recent failures", "", this.failures.node),
    );
  }

  close() {
    this.charts.close();
    clearTimeout(this.timer);
    this.isClosed = true;
  }

  async loadFailures() {
    clearTimeout(this.timer);
    if (this.isClosed) return;
    if (!document.hidden) await this.failures.load();
    this.timer = setTimeout(() => this.loadFailures(), FAILURES_EVERY_MS);
  }

  /** A decision that was just taken; `null` if only the daemon knows which. */
  heard(decision) {
    if (decision) {
      this.decisions.add([decision]);
      if (decision.rollout === this.name) this.charts.loadSoon();
    } else {
      this.decisions.load();
    }
  }

  /** After a time in which something may have been missed. */
  refresh() {
    this.decisions.load();
    this.charts.loadSoon();
    this.loadFailures();
  }

  show(rollout, status) {
    this.rollout = rollout;
    const state = stateOf(rollout);
    badge(this.pill, state.icon, state.word, state.tone);
    say(this.title, state.headline);
    say(this.line, lineOf(rollout));
    sayMarked(this.why, rollout.reason);
    attr(this.node.firstElementChild, "data-tone", state.tone);
    showSplit(this.split, rollout);
    this.showLadder(rollout);
    this.showButtons(rollout);
    showTiles(this.tiles, rollout);
    showArms(this.arms, rollout, status);
    showGuards(this.guards, rollout);
  }

  showLadder(rollout) {
    const { index } = rollout.stage;
    const here = index - 1;
    const isOff = ["warming-up", "rolled-back", "stopped"].includes(rollout.state);
    const steps = (rollout.stages ?? []).map((weight, place) => {
      const isDone = rollout.state === "complete" || (!isOff && place < here);
      const isHere = !isOff && place === here;
      return { weight, place, is: isHere ? "here" : isDone ? "done" : "ahead" };
    });
    keyed(
      this.ladder,
      steps,
      (step) => step.place,
      () => el("li", {}, el("span", { class: "rung", "aria-hidden": "true" }), el("span"), el("span", { class: "unseen" })),
      (node, step) => {
        attr(node, "class", step.is);
        attr(node, "aria-current", step.is === "here" ? "step" : null);
        say(node.children[1], percent(step.weight));
        say(node.children[2], { here: " this stage", done: " done", ahead: " ahead" }[step.is]);
      },
    );
  }

  showButtons(rollout) {
    keyed(
      this.buttons,
      commandsOf(rollout),
      (action) => action,
      (action) => {
        const opened = (event) => this.command(action, this.rollout, event.currentTarget);
        const className = action === "rollback" ? "danger quiet" : "quiet";
        return el("button", { type: "button", class: className, "aria-haspopup": "dialog", on: { click: opened } }, `${titleOf(action)}…`);
      },
      () => {},
    );
  }
}

function lineOf(rollout) {
  const { stage } = rollout;
  const parts = [`stage ${stage.index} of ${stage.of}`, `since ${clock(stage.since, false)}`];
  if (rollout.state === "warming-up") parts.splice(0, 2, `${stage.of} stages ahead`);
  if (rollout.state === "rolled-back") parts.splice(0, 2, `from stage ${stage.index} of ${stage.of}`);
  if (rollout.attempt > 1) parts.push(`attempt ${rollout.attempt}`);
  return parts.join(" · ");
}

function makeSplit() {
  const legacy = el("div", { class: "part legacy" });
  const canary = el("div", { class: "part canary" });
  const words = el("p", { class: "split-words" }, el("span"), el("span"));
  const bar = el("div", { class: "split", role: "img" }, legacy, canary);
  return { node: el("div", {}, bar, words), bar, legacy, canary, words };
}

function showSplit(split, rollout) {
  const share = rollout.weight;
  split.canary.style.width = `${share * 100}%`;
  split.legacy.style.width = `${(1 - share) * 100}%`;
  split.canary.hidden = share <= 0;
  split.legacy.hidden = share >= 1;
  attr(split.bar, "aria-label", `legacy ${percent(1 - share)}, canary ${percent(share)} of the traffic`);
  say(split.words.children[0], `legacy ${percent(1 - share)}`);
  say(split.words.children[1], `canary ${percent(share)}`);
}

function tilesOf({ arms }) {
  const { legacy, canary } = arms;
  const saved = savings(arms);
  const masked = legacy.masked + canary.masked;
  const ratio = (a, b) => (a == null || b == null || b === 0 ? null : a / b - 1);
  const faster = ratio(canary.latency_ms.p50, legacy.latency_ms.p50);
  const tiles = [
    ["Errors of the canary", percent(canary.error_rate), `legacy ${percent(legacy.error_rate)}`, null],
    [
      "Median latency of the canary",
      millis(canary.latency_ms.p50),
      faster === null ? `legacy ${millis(legacy.latency_ms.p50)}` : `legacy ${millis(legacy.latency_ms.p50)}, ${Math.abs(faster * 100).toFixed(0)}% ${faster < 0 ? "faster" : "slower"}`,
      null,
    ],
    ["Rescued by failover", count(masked), masked > 0 ? "failures that no client saw" : "nothing to rescue yet", null],
  ];
  if (saved) {
    const word = saved.usd >= 0 ? "Saved by the canary" : "Extra cost of the canary";
    const less = `${Math.abs(saved.share * 100).toFixed(0)}% ${saved.share >= 0 ? "less" : "more"} per answer than legacy`;
    // A sum that leaves much out is no news, good or bad.
    const unknown = Math.max(...[legacy, canary].map((arm) => (arm.unpriced + arm.no_usage) / arm.requests));
    const isMost = unknown <= 0.1;
    const tone = saved.usd >= 0 ? "go" : "stop";
    tiles.push([word, dollars(Math.abs(saved.usd)), isMost ? less : `${less}; much is of unknown cost`, isMost ? tone : null]);
  } else {
    const isPriced = legacy.cost_usd != null && canary.cost_usd != null;
    tiles.push(["Saved by the canary", "–", isPriced ? "no answers of known cost yet" : "known with prices for both arms", null]);
  }
  return tiles;
}

function showTiles(list, rollout) {
  keyed(
    list,
    tilesOf(rollout).map((tile, place) => [place, ...tile]),
    ([place]) => place,
    () => el("div", { class: "tile" }, el("dt"), el("dd", { class: "figure" }), el("dd", { class: "muted small" })),
    (node, [, name, value, note, tone]) => {
      say(node.children[0], name);
      say(node.children[1], value);
      attr(node.children[1], "data-tone", tone);
      say(node.children[2], note);
    },
  );
}
