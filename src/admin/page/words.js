// How numbers, times and the words of the API are written for people.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (number) => (number == null ? "–" : whole.format(number));

function digits(value) {
  const size = Math.abs(value);
  const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4;
  return String(Number(value.toFixed(places)));
}

export const percent = (share) => (share == null ? "–" : `${digits(share * 100)}%`);

export function millis(ms) {
  if (ms == null) return "–";
  return ms < 1000 ? `${digits(ms)} ms` : `${digits(ms / 1000)} s`;
}

export function dollars(usd) {
  if (usd == null) return "–";
  const size = Math.abs(usd);
  const sign = usd < 0 ? "-" : "";
  if (size >= 1000) return `${sign}$${whole.format(size)}`;
  return `${sign}$${size >= 1 || size === 0 ? size.toFixed(2) : digits(size)}`;
}

export const speed = (perSecond) => (perSecond == null ? "–" : digits(perSecond));

/** As the charts name their units. */
export function valueOf(unit, value) {
  if (value == null) return "–";
  return { share: percent, ms: millis, usd: dollars, "per-s": speed }[unit](value);
}

export function evidence(number) {
  if (number == null) return "–";
  if (number < 1000) return digits(number);
  if (number < 1e6) return count(number);
  return `10${[...String(Math.floor(Math.log10(number)))].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
}

export function span(ms) {
  const units = [[86400000, "d"], [3600000, "h"], [60000, "m"], [1000, "s"]];
  let rest = Math.max(0, ms);
  const parts = [];
  for (const [size, unit] of units) {
    const number = Math.floor(rest / size);
    rest -= number * size;
    if (number > 0 || parts.length > 0) parts.push(`${number}${unit}`);
    if (parts.length === 2) break;
  }
  return parts.filter((part) => !part.startsWith("0")).join(" ") || "0s";
}

/** An estimate: seconds of minutes say nothing. */
export const about = (ms) => span(ms > 60000 ? ms - (ms % 60000) : ms);

const two = (number) => String(number).padStart(2, "0");
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** Time of day; with the date if it was another day. */
export function clock(time, seconds = true) {
  const at = new Date(time);
  const now = new Date();
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}${seconds ? `:${two(at.getSeconds())}` : ""}`;
  const today = at.toDateString() === now.toDateString();
  return today ? clock : `${MONTHS[at.getMonth()]} ${at.getDate()} ${clock}`;
}

/** Icon, tone and headline of a state. */
export function stateOf(rollout) {
  const share = percent(rollout.weight);
  const states = {
    "warming-up": ["clock", "calm", "Measuring legacy before the canary gets its first request"],
    running: ["play", "go", `${share} of the traffic on the canary`],
    held: ["pause", "warn", `Held with ${share} of the traffic on the canary`],
    tripped: ["bolt", "stop", "The canary failed: all traffic is on legacy for now"],
    retreated: ["down", "warn", `Retreated to ${share} on the canary to find out`],
    "rolled-back": ["back", "stop", "Rolled back: all traffic is on legacy"],
    complete: ["check", "go", `Complete: ${share} of the traffic on the canary`],
    stopped: ["stop", "calm", "No longer configured"],
  };
  const [iconName, tone, headline] = states[rollout.state] ?? ["dash", "calm", rollout.state];
  return { icon: iconName, tone, headline, word: rollout.state.replaceAll("-", " ") };
}

const KINDS = {
  start: ["up", "go", "start"],
  promote: ["up", "go", "promote"],
  resume: ["play", "go", "resume"],
  retry: ["up", "go", "retry"],
  complete: ["check", "go", "complete"],
  hold: ["pause", "calm", "hold"],
  trip: ["bolt", "stop", "trip"],
  "probe-failed": ["cross", "stop", "probe failed"],
  retreat: ["down", "stop", "retreat"],
  "roll-back": ["back", "stop", "roll back"],
  "set-weight": ["person", "operator", "set weight"],
  config: ["dash", "operator", "config"],
  stop: ["stop", "calm", "stop"],
};

/** Icon, tone and word of a decision. */
export function kindOf(kind) {
  const [iconName, tone, word] = KINDS[kind] ?? ["dash", "calm", kind];
  return { icon: iconName, tone, word };
}

/** Icon, tone and word of a verdict. */
export function verdictOf(verdict) {
  const verdicts = {
    harm: ["cross", "stop", "harm"],
    healthy: ["check", "go", "healthy"],
    undecided: ["clock", "calm", "undecided"],
    "no-data": ["dash", "calm", "no data"],
    "not-applicable": ["dash", "calm", "not applicable"],
  };
  const [iconName, tone, word] = verdicts[verdict] ?? ["dash", "calm", verdict];
  return { icon: iconName, tone, word };
}

/**
 * Answers of known cost, which a cost per request is divided by; the daemon, the terminal and the report count
 * alike. Failures and 429s cost nothing and bring nothing, so they must not make their arm look cheap.
 */
export const knownAnswers = (arm) =>
  arm.requests - arm.errors - arm.rate_limited - arm.rejected - arm.unpriced - arm.no_usage;

/** What an answer costs; `null` if that cannot be said. */
export const costOfAnswer = (arm) =>
  arm.cost_usd == null || knownAnswers(arm) <= 0 ? null : arm.cost_usd / knownAnswers(arm);

/** What the canary's answers saved, at what legacy's cost; `null` if that cannot be said. */
export function savings({ legacy, canary }) {
  const [of, to] = [legacy, canary].map(costOfAnswer);
  if (of === null || to === null || of === 0) return null;
  return { usd: (of - to) * knownAnswers(canary), share: 1 - to / of };
}

/**
 * True if `resume` ends a hold and does nothing else. Only some states give way to the word `held`; under the
 * others the reason tells it.
 */
export function liftsHold({ state, reason }) {
  if (state === "tripped") return false;
  if (state === "retreated") return !reason.startsWith("retreated to");
  return state === "held" || isHeldByHand({ reason });
}

export const isHeldByHand = ({ reason }) => reason.startsWith("held by an operator");
