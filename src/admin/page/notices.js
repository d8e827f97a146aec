// What needs attention, above everything else.

import { badge, el, keyed, say, sayMarked } from "./dom.js";
import { clock, count, dollars, percent } from "./words.js";

/** Why the latest decision of this kind was taken, if it is known. */
function whyOf(decisions, rollout, kind) {
  const row = decisions.find((one) => one.rollout === rollout.name && one.kind === kind);
  return row ? sentence(row.reason) : "";
}

function ofRollout(rollout, decisions) {
  const why = (kind) => whyOf(decisions, rollout, kind);
  const notices = [];
  const add = (key, tone, iconName, title, text) =>
    notices.push({ key: `${key}/${rollout.name}`, tone, icon: iconName, title, text });
  const name = `Rollout ${rollout.name}`;
  const isKey = rollout.state === "tripped" && rollout.reason.includes("refuses its key");
  if (isKey) {
    add("key", "stop", "key", `${name}: the canary refuses its key`, "All traffic is on legacy. Put a right key into the configuration, or resume when the account is in order.");
  } else if (rollout.state === "tripped") {
    add("tripped", "stop", "bolt", `${name} is tripped`, `All traffic is on legacy; the stage is kept. ${why("trip")}`);
  }
  if (rollout.state === "rolled-back") {
    add("rolled-back", "stop", "back", `${name} is rolled back`, `All traffic is on legacy. ${why("roll-back")}`);
  }
  if (rollout.state === "held") {
    add("held", "warn", "pause", `${name} is held`, `The weight does not rise. ${sentence(rollout.reason)}`);
  }
  if (rollout.state === "retreated") {
    add("retreated", "warn", "down", `${name} has retreated`, why("retreat") || sentence(rollout.reason));
  }
  if (rollout.state === "complete") {
    add("complete", "go", "check", `${name} is complete`, "Keep for 30 days: legacy's key and account (conversations that began there finish there, and failover needs them), this daemon, and its database with the record of every decision.");
  }
  for (const [arm, other] of [["legacy", "canary"], ["canary", "legacy"]]) {
    const { breaker } = rollout.arms[arm];
    // The trip of the canary says more than its breaker.
    if (breaker === "closed" || (arm === "canary" && rollout.state === "tripped")) continue;
    const isOtherWell = rollout.arms[other].breaker === "closed" && !(other === "canary" && rollout.state === "tripped");
    const rest = isOtherWell ? `${arm} is not dialled but for probes; ${other} answers.` : `and ${other} is not well either, so requests may fail.`;
    add(`breaker-${arm}`, isOtherWell ? "warn" : "stop", "warn", `Connections to ${arm} fail`, `The breaker is ${breaker}: ${rest}`);
  }
  if (rollout.dominant_note) {
    add("dominant", "calm", "warn", `${name}: few keys make up much of the traffic`, sentence(rollout.dominant_note));
  }
  return notices;
}

function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}

function ofDaemon(status) {
  const notices = [];
  const add = (key, tone, iconName, title, text) =>
    notices.push({ key, tone, icon: iconName, title, text });
  if (status.store && !status.store.healthy) {
    add("store", "stop", "warn", "The store is failing", `Traffic flows with the last weights, and nothing goes up. ${sentence(status.store.error ?? "")}`);
  }
  if (status.config.error) {
    add("config", "stop", "warn", "The configuration file was rejected", `What was loaded at ${clock(status.config.loaded_at)} stays in force.\n\n${status.config.error}`);
  }
  if (status.store.dropped_samples > 0) {
    add("dropped", "calm", "warn", "Some requests are not in the record", `${count(status.store.dropped_samples)} samples were dropped because a queue was full.`);
  }
  for (const [place, alert] of (status.alerts ?? []).entries()) {
    const parts = [];
    if (alert.failed > 0) parts.push(`${count(alert.failed)} refused`);
    if (alert.dropped > 0) parts.push(`${count(alert.dropped)} given up`);
    if (alert.last_error) parts.push(alert.last_error);
    if (parts.length > 0) add(`alerts-${place}`, "warn", "warn", `Alerts to ${alert.webhook} do not all arrive`, sentence(parts.join(", ")));
  }
  for (const budget of status.budgets ?? []) {
    if (budget.share >= 0.8) {
      add(`budget-${budget.name}`, "warn", "warn", `Budget ${budget.name}: ${percent(budget.share)} is spent`, `${dollars(budget.spent_usd)} of ${dollars(budget.usd_per_day)} today (UTC). Budgets only tell; traffic goes on.`);
    }
  }
  return notices;
}

/** Shows the notices of a status; `link` adds one when the page is old; `decisions` say why. */
export function showNotices(host, status, link, decisions) {
  const notices = status ? ofDaemon(status) : [];
  for (const rollout of status?.rollouts ?? []) notices.push(...ofRollout(rollout, decisions));
  if (link.state === "lost") {
    notices.unshift({
      key: "link",
      tone: "stop",
      icon: "warn",
      title: "No connection to cutover",
      text: link.heardAt ? `What you see is from ${clock(link.heardAt)}. Trying again.` : "Trying again.",
    });
  }
  host.hidden = notices.length === 0;
  keyed(
    host,
    notices,
    (notice) => notice.key,
    () => el("div", { class: "notice" }, el("p", { class: "notice-title" }), el("p", { class: "notice-text" })),
    (node, notice) => {
      node.className = `notice ${notice.tone}`;
      badge(node.children[0], notice.icon, notice.title, notice.tone);
      node.children[1].classList.toggle("mono", notice.key === "config");
      if (notice.key === "config") say(node.children[1], notice.text);
      else sayMarked(node.children[1], notice.text);
    },
  );
}
