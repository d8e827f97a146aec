// The dashboard: follows the daemon and shows one rollout at a time.

import { Dialog, titleOf } from "./dialog.js";
import { attr, badge, el, keyed, say } from "./dom.js";
import { follow } from "./live.js";
import { showNotices } from "./notices.js";
import { RolloutView } from "./rollout.js";
import { clock, percent, span, stateOf } from "./words.js";

const THEME = "cutover-theme";
const TOAST_MS = 7000;
const find = (id) => document.getElementById(id);

let status = null;
let link = { state: "connecting", heardAt: null };
let view = null;
const said = new Map();

const dialog = new Dialog({
  newest: (name) => status?.rollouts.find((rollout) => rollout.name === name),
  done: (action, rollout, text) => toast(`${titleOf(action)} ${rollout.name}: ${text}`),
});

function announce(text) {
  say(find("said"), text);
}

function toast(text) {
  announce(text);
  const node = el("p", { class: "toast" }, text);
  find("toasts").append(node);
  setTimeout(() => node.remove(), TOAST_MS);
}

/** The rollout that the address names, else the one that was shown before. */
function chosen() {
  const named = (name) => status.rollouts.find((rollout) => rollout.name === name);
  return named(nameInAddress()) ?? named(view?.name) ?? status.rollouts[0];
}

function nameInAddress() {
  const name = location.hash.slice(1);
  try {
    return decodeURIComponent(name);
  } catch {
    // Typed by hand, like `100%`.
    return name;
  }
}

function showBar() {
  say(find("version"), status.version);
  const store = find("store-chip");
  store.hidden = false;
  badge(store, status.store.healthy ? "check" : "warn", status.store.healthy ? "store ok" : "store failing", status.store.healthy ? "go" : "stop");
  const config = find("config-chip");
  config.hidden = false;
  badge(config, status.config.error ? "warn" : "check", status.config.error ? "config rejected" : "config ok", status.config.error ? "stop" : "go");
  attr(config, "title", `${status.config.path ?? "built in"}, loaded ${clock(status.config.loaded_at)}`);
  attr(store, "title", `${status.store.kind}, up for ${span(status.uptime_s * 1000)}`);
}

function showLink() {
  const age = link.heardAt ? span(Date.now() - link.heardAt) : "";
  const words = {
    connecting: ["clock", "connecting", "calm"],
    live: ["play", "live", "go"],
    polling: ["play", "live, every 3s", "go"],
    reconnecting: ["clock", "reconnecting", "warn"],
    lost: ["cross", age ? `no word for ${age}` : "no connection", "stop"],
  };
  badge(find("live-chip"), ...words[link.state]);
  document.body.classList.toggle("stale", link.state === "lost");
}

function showTabs(rollout) {
  const tabs = find("tabs");
  tabs.hidden = status.rollouts.length < 2;
  keyed(
    tabs,
    status.rollouts,
    (one) => one.name,
    (one) => el("a", { href: `#${encodeURIComponent(one.name)}` }, el("b", {}, one.name), el("span", { class: "badge" }), el("span")),
    (node, one) => {
      const state = stateOf(one);
      badge(node.children[1], state.icon, state.word, state.tone);
      say(node.children[2], percent(one.weight));
      attr(node, "aria-current", one === rollout ? "page" : null);
    },
  );
}

/** Says what changed, once, to those who listen rather than look. */
function sayChanges() {
  for (const rollout of status.rollouts) {
    const now = `${rollout.name}: ${stateOf(rollout).word}, ${percent(rollout.weight)} on the canary`;
    const before = said.get(rollout.name);
    said.set(rollout.name, now);
    if (before !== undefined && before !== now) announce(now);
  }
}

function show() {
  if (!status) return;
  showBar();
  showNotices(find("notices"), status, link, view?.decisions.rows ?? []);
  const rollout = chosen();
  if (!rollout) {
    view?.close();
    view = null;
    find("rollout").replaceChildren(el("p", { class: "panel muted" }, "No rollout is configured: all traffic goes to legacy."));
    return;
  }
  showTabs(rollout);
  if (view?.name !== rollout.name) {
    view?.close();
    view = new RolloutView(rollout.name, (action, of, opener) => dialog.open(action, of, opener));
    find("rollout").replaceChildren(view.node);
    attr(find("rollout"), "aria-busy", null);
  }
  view.show(rollout, status);
  document.title = `${percent(rollout.weight)} ${stateOf(rollout).word} · cutover`;
  sayChanges();
}

function themed(choice) {
  attr(document.documentElement, "data-theme", choice === "system" ? null : choice);
  say(find("theme"), `Theme: ${choice}`);
}

function switchTheme() {
  const choices = ["system", "light", "dark"];
  const now = localStorage.getItem(THEME) ?? "system";
  const next = choices[(choices.indexOf(now) + 1) % choices.length];
  localStorage.setItem(THEME, next);
  themed(next);
}

themed(localStorage.getItem(THEME) ?? "system");
find("theme").addEventListener("click", switchTheme);
addEventListener("hashchange", show);
find("skip").addEventListener("click", (event) => {
  // The address names a rollout, not a place on the page.
  event.preventDefault();
  find("main").focus();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) view?.refresh();
});

follow({
  onStatus(newest) {
    status = newest;
    show();
  },
  onDecision(decision) {
    view?.heard(decision);
  },
  onOpen() {
    view?.refresh();
  },
  onLink(newest) {
    const isBack = link.state === "lost" && newest.state !== "lost";
    link = newest;
    showLink();
    if (status || link.state === "lost") showNotices(find("notices"), status, link, view?.decisions.rows ?? []);
    if (isBack) view?.refresh();
  },
});
