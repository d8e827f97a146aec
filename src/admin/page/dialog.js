// An operator's command: what it will do, why, and with which token.

import { attr, el, say } from "./dom.js";
import { liftsHold, percent } from "./words.js";

const TOKEN = "cutover-token";
const find = (id) => document.getElementById(id);

const next = (rollout) => rollout.stages?.find((weight) => weight > rollout.stage.weight);

/** What each action says before it is done. */
const ACTIONS = {
  hold: {
    title: "Hold",
    confirm: "Hold",
    to: (rollout) => rollout.weight,
    what: "The weight does not rise until somebody resumes it. A trip and a rollback still act.",
  },
  resume: {
    title: "Resume",
    confirm: "Resume",
    to: (rollout) => (rollout.state === "held" ? rollout.weight : rollout.state === "rolled-back" || rollout.state === "warming-up" ? rollout.stages?.[0] : rollout.stage.weight),
    what: "The rollout goes on from here, without waiting for a cooldown or for probes.",
  },
  promote: {
    title: "Promote",
    confirm: "Promote now",
    to: (rollout) => (rollout.state === "rolled-back" || rollout.state === "warming-up" ? rollout.stages?.[0] : next(rollout) ?? rollout.stage.weight),
    what: "The next stage begins now, without the proof that cutover would wait for.",
  },
  rollback: {
    title: "Roll back",
    confirm: "Roll back now",
    tone: "danger",
    to: () => 0,
    what: "All new requests go to legacy at once; requests under way end where they are. It stays so until somebody retries.",
  },
  retry: {
    title: "Retry",
    confirm: "Retry",
    to: (rollout) => rollout.stages?.[0],
    what: "A new attempt begins at the first stage, with new evidence.",
  },
  weight: {
    title: "Set the weight",
    confirm: "Set the weight",
    to: () => null,
    what: "The canary gets this share now, without proof, and the rollout goes on from there. Hold it to keep it there.",
  },
};

export const titleOf = (action) => ACTIONS[action].title;

/** These may send more to the canary, and have to fit what is true when they are confirmed. */
const RAISING = ["resume", "promote", "retry", "weight"];

/** Where the share goes; `null` if that is typed. */
function targetOf(action, rollout) {
  if (action === "resume" && liftsHold(rollout)) return rollout.weight;
  // Back to where it stood, not beyond.
  if (action === "promote" && rollout.state === "retreated") return rollout.stage.weight;
  return ACTIONS[action].to(rollout);
}

const whatOf = (action, rollout) =>
  action === "resume" && liftsHold(rollout)
    ? "The hold is lifted: the weight stays where it is, and may rise again by proof."
    : ACTIONS[action].what;

/** What a person read before confirming. */
const seenOf = (rollout) =>
  JSON.stringify([rollout.state, rollout.weight, rollout.stage.weight, liftsHold(rollout)]);

/**
 * Asks and sends. `newest` gives the latest state of a rollout by its name; `done` hears what became of an order
 * whose dialog is closed.
 */
export class Dialog {
  constructor({ newest, done }) {
    this.newest = newest;
    this.done = done;
    // An answer may come when another question is being asked.
    this.opening = 0;
    this.dialog = find("dialog");
    find("dialog-cancel").addEventListener("click", () => this.dialog.close());
    find("dialog-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.dialog.addEventListener("close", () => {
      this.opening += 1;
      this.opener?.focus();
    });
  }

  open(action, rollout, opener) {
    this.opening += 1;
    this.action = action;
    this.opener = opener;
    const words = ACTIONS[action];
    say(find("dialog-title"), `${words.title}: ${rollout.name}`);
    this.show(rollout);
    find("weight-field").hidden = action !== "weight";
    find("weight-input").required = action === "weight";
    find("weight-input").value = "";
    find("reason-input").value = "";
    find("token-field").hidden = true;
    find("token-input").value = "";
    this.fault("");
    const confirm = find("dialog-confirm");
    say(confirm, words.confirm);
    confirm.className = words.tone ?? "primary";
    confirm.disabled = false;
    this.dialog.showModal();
    find(action === "weight" ? "weight-input" : "reason-input").focus();
  }

  /** What the order would do, as far as is known now. */
  show(rollout) {
    this.rollout = rollout;
    this.seen = seenOf(rollout);
    say(find("dialog-what"), whatOf(this.action, rollout));
    const to = targetOf(this.action, rollout);
    const from = percent(rollout.weight);
    const shift = to == null ? `now ${from}` : to === rollout.weight ? `stays ${from}` : `${from} → ${percent(to)}`;
    const line = el("span", {}, "Share of the canary: ", el("b", {}, shift));
    find("dialog-shift").replaceChildren(line);
  }

  fault(text, at) {
    const node = find("dialog-fault");
    node.hidden = text === "";
    say(node, text);
    for (const id of ["reason-input", "weight-input", "token-input"]) {
      attr(find(id), "aria-invalid", id === at ? "true" : null);
    }
    if (at) find(at).focus();
  }

  async send() {
    const reason = find("reason-input").value.trim();
    const share = find("weight-input");
    if (this.action === "weight" && (share.value === "" || !share.checkValidity())) {
      this.fault("A share is a number from 0 to 100.", "weight-input");
      return;
    }
    if (reason === "") {
      this.fault("Say why in a few words: it is recorded with the decision.", "reason-input");
      return;
    }
    // The controller goes on while a person types: what was read may not be what would happen now.
    const newest = this.newest(this.rollout.name);
    if (newest && RAISING.includes(this.action) && seenOf(newest) !== this.seen) {
      this.show(newest);
      this.fault(`It changed meanwhile and is ${newest.state.replaceAll("-", " ")} now: read again, then confirm.`);
      return;
    }
    const token = find("token-input").value || sessionStorage.getItem(TOKEN);
    const order = { opening: this.opening, action: this.action, rollout: this.rollout, token };
    find("dialog-confirm").disabled = true;
    try {
      await this.answered(order, await post(order, reason, share.value));
    } catch {
      this.failed(order, "cutover does not answer: look whether it was done.");
    }
  }

  async answered(order, answer) {
    const body = await answer.json().catch(() => null);
    const isAsked = order.opening === this.opening;
    if (answer.ok) {
      if (order.token) sessionStorage.setItem(TOKEN, order.token);
      if (isAsked) this.dialog.close();
      this.done(order.action, order.rollout, body?.message || "it was like that already");
      return;
    }
    if (answer.status === 401) {
      sessionStorage.removeItem(TOKEN);
      if (isAsked) find("token-field").hidden = false;
      const words = order.token ? "This token is not the right one." : "This needs the admin token of the configuration.";
      this.failed(order, words, "token-input");
      return;
    }
    this.failed(order, body?.error?.message ?? `the answer is ${answer.status}`);
  }

  /** Says why in the dialog, or beside it when another question is asked there by now. */
  failed(order, text, at) {
    if (order.opening !== this.opening) {
      this.done(order.action, order.rollout, text);
      return;
    }
    find("dialog-confirm").disabled = false;
    this.fault(text, at);
  }
}

function post({ action, rollout, token }, reason, share) {
  const body = action === "weight" ? { weight: `${share}%`, reason } : { reason };
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  return fetch(`api/v1/rollouts/${encodeURIComponent(rollout.name)}/${action}`, {
    method: action === "weight" ? "PUT" : "POST",
    headers,
    body: JSON.stringify(body),
  });
}
