// An operator's command: what it will do, why, and with which token.

import { attr, el, say } from "./dom.js";
import { percent } from "./words.js";

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

/** Asks and sends. `done` hears the daemon's answer. */
export class Dialog {
  constructor(done) {
    this.done = done;
    this.dialog = find("dialog");
    find("dialog-cancel").addEventListener("click", () => this.dialog.close());
    find("dialog-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.dialog.addEventListener("close", () => this.opener?.focus());
  }

  open(action, rollout, opener) {
    this.action = action;
    this.rollout = rollout;
    this.opener = opener;
    const words = ACTIONS[action];
    say(find("dialog-title"), `${words.title}: ${rollout.name}`);
    say(find("dialog-what"), words.what);
    const to = words.to(rollout);
    const from = percent(rollout.weight);
    const shift = to == null ? `now ${from}` : to === rollout.weight ? `stays ${from}` : `${from} → ${percent(to)}`;
    const line = el("span", {}, "Share of the canary: ", el("b", {}, shift));
    find("dialog-shift").replaceChildren(line);
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
    const token = find("token-input").value || sessionStorage.getItem(TOKEN);
    const confirm = find("dialog-confirm");
    confirm.disabled = true;
    try {
      await this.answered(await this.post(reason, share.value, token), token);
    } catch {
      this.fault("cutover does not answer; nothing is known to have changed.");
    } finally {
      confirm.disabled = false;
    }
  }

  post(reason, share, token) {
    const body = this.action === "weight" ? { weight: `${share}%`, reason } : { reason };
    const headers = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    const name = encodeURIComponent(this.rollout.name);
    return fetch(`api/v1/rollouts/${name}/${this.action}`, {
      method: this.action === "weight" ? "PUT" : "POST",
      headers,
      body: JSON.stringify(body),
    });
  }

  async answered(answer, token) {
    const body = await answer.json().catch(() => null);
    if (answer.ok) {
      if (token) sessionStorage.setItem(TOKEN, token);
      this.dialog.close();
      this.done(this.action, this.rollout, body);
      return;
    }
    if (answer.status === 401) {
      sessionStorage.removeItem(TOKEN);
      find("token-field").hidden = false;
      const words = token ? "This token is not the right one." : "This needs the admin token of the configuration.";
      this.fault(words, "token-input");
      return;
    }
    this.fault(body?.error?.message ?? `the answer is ${answer.status}`);
  }
}
