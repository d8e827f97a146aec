// The charts: drawn by the daemon at the width of this page; a crosshair shows the values behind them.

import { attr, el, getJson, say } from "./dom.js";
import { clock, kindOf, percent, valueOf } from "./words.js";

const RANGES = [["1h", 1], ["6h", 6], ["24h", 24], ["7d", 168], ["30d", 720], ["all", null]];
const HOUR = 3600000;
/** A decision this near to the crosshair is told, in pixels. */
const NEAR = 9;
const SOON_MS = 300;
const KEPT = "cutover-range";

export class Charts {
  constructor(rollout) {
    this.rollout = rollout;
    this.range = RANGES.find(([name]) => name === sessionStorage.getItem(KEPT)) ?? RANGES.at(-1);
    this.figures = new Map();
    this.data = null;
    this.soonTimer = null;
    this.asked = 0;
    this.fault = el("p", { class: "fault", hidden: true });
    this.buttons = RANGES.map((range) =>
      el("button", { type: "button", on: { click: () => this.choose(range) } }, range[0]),
    );
    const ranges = el("div", { class: "ranges", role: "group", "aria-label": "Time range" }, ...this.buttons);
    this.weight = figure("weight", "Share of the canary", this);
    this.grid = el("div", { class: "charts" });
    this.body = el("tbody");
    this.numbers = el(
      "details",
      { class: "numbers", on: { toggle: () => this.showNumbers() } },
      el("summary", {}, "The numbers as a table"),
      el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "The numbers of the charts" }),
    );
    const legend = el(
      "p",
      { class: "legend", "aria-hidden": "true" },
      ...["start", "trip", "hold", "set-weight"].map((kind) => key(kind)),
    );
    this.top = el("div", { class: "panel" }, el("div", { class: "panel-head" }, el("h3", {}, "Share of the canary"), legend, ranges), this.fault, this.weight.node);
    const arms = el("p", { class: "legend" }, ...["legacy", "canary"].map((arm) => el("span", {}, el("span", { class: `dot ${arm}`, "aria-hidden": "true" }), arm)));
    this.rest = el("section", { "aria-label": "Over time" }, el("div", { class: "over-time" }, el("h3", {}, "Over time"), arms), this.grid, this.numbers);
    this.markRange();
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.top);
  }

  close() {
    this.observer.disconnect();
    this.asking?.abort();
    clearTimeout(this.timer);
    clearTimeout(this.soonTimer);
    clearTimeout(this.resizing);
    this.isClosed = true;
  }

  choose(range) {
    this.range = range;
    sessionStorage.setItem(KEPT, range[0]);
    this.markRange();
    this.load();
  }

  markRange() {
    for (const [place, button] of this.buttons.entries()) {
      attr(button, "aria-pressed", String(RANGES[place] === this.range));
    }
  }

  resized() {
    const width = this.weight.place.clientWidth;
    if (width === 0 || width === this.width) return;
    const isFirst = this.width === undefined;
    this.width = width;
    clearTimeout(this.resizing);
    this.resizing = setTimeout(() => this.load(), isFirst ? 0 : 200);
  }

  /** Loads in a moment: a backlog of decisions comes at once and is one reason to draw. */
  loadSoon() {
    this.soonTimer ??= setTimeout(() => {
      this.soonTimer = null;
      this.load();
    }, SOON_MS);
  }

  async load() {
    clearTimeout(this.timer);
    if (this.isClosed) return;
    const asked = ++this.asked;
    this.asking?.abort();
    if (!document.hidden && this.width) {
      this.asking = new AbortController();
      try {
        const data = await getJson(`charts.json?${this.query()}`, this.asking.signal);
        if (asked !== this.asked || this.isClosed) return;
        this.fault.hidden = true;
        this.show(data);
      } catch (failed) {
        if (asked !== this.asked || this.isClosed) return;
        say(this.fault, `The charts cannot be drawn: ${failed.message}`);
        this.fault.hidden = false;
      }
    }
    // A point of ten minutes does not change in fifteen seconds; a decision asks at once.
    const every = Math.min(120000, Math.max(15000, (this.data?.step_ms ?? 60000) / 4));
    this.timer = setTimeout(() => this.load(), every);
  }

  query() {
    const small = this.metricWidth();
    const query = new URLSearchParams({ width: this.width, small, offset: -new Date().getTimezoneOffset() });
    if (this.range[1] !== null) query.set("from", Date.now() - this.range[1] * HOUR);
    return `rollout=${encodeURIComponent(this.rollout)}&${query}`;
  }

  /** The width of the drawing in a small chart, by the columns that the style gives. */
  metricWidth() {
    const place = this.figures.values().next().value?.place;
    if (place?.clientWidth) return place.clientWidth;
    const probe = el("div", { class: "panel" }, el("div", { class: "place" }));
    this.grid.append(probe);
    const width = probe.firstElementChild.clientWidth;
    probe.remove();
    return width || this.width;
  }

  show(data) {
    this.data = data;
    this.weight.draw(data.weight.svg);
    for (const metric of data.metrics) {
      if (!this.figures.has(metric.name)) {
        const made = figure(metric.name, metric.title, this);
        this.figures.set(metric.name, made);
        made.head = el("div", { class: "readout" }, ...["legacy", "canary"].map(readout));
        this.grid.append(el("div", { class: "panel" }, el("div", { class: "panel-head" }, el("h4", {}, metric.title), made.head), made.node));
      }
      this.figures.get(metric.name).draw(metric.svg);
    }
    if (this.numbers.open) this.showNumbers();
    this.point(null);
  }

  /** Shows the values at a time in all charts, or the latest ones. */
  point(at, where) {
    const { data } = this;
    if (!data) return;
    const place = at === null ? -1 : nearest(data.at_ms, at);
    const time = at === null ? null : at;
    for (const metric of data.metrics) {
      const shown = this.figures.get(metric.name);
      for (const [number, arm] of ["legacy", "canary"].entries()) {
        const value = place >= 0 ? metric[arm][place] : metric[arm].findLast((one) => one != null);
        say(shown.head.children[number].lastElementChild, valueOf(metric.unit, value));
      }
      shown.cross(place >= 0 ? data.at_ms[place] : time, null);
    }
    this.weight.cross(time, null);
    if (time === null || !where) return;
    const isWeight = where === this.weight;
    const told = isWeight ? this.told(time) : [clock(data.at_ms[place] ?? time, false)];
    const on = isWeight ? time : data.at_ms[place] ?? time;
    if (!isWeight && place >= 0) {
      const metric = data.metrics.find((one) => one.name === where.name);
      for (const arm of ["legacy", "canary"]) told.push(`${arm} ${valueOf(metric.unit, metric[arm][place])}`);
    }
    where.cross(on, told);
  }

  /** What there is to say of the weight at a time: the decision there, if one is near. */
  told(at) {
    const { steps, decisions } = this.data.weight;
    const near = this.weight.spanOf(NEAR);
    const close = decisions.filter((one) => Math.abs(one.at_ms - at) <= near);
    const decision = close.sort((a, b) => Math.abs(a.at_ms - at) - Math.abs(b.at_ms - at))[0];
    if (decision) {
      const { word } = kindOf(decision.kind);
      const shift = `${percent(decision.weight_from)} → ${percent(decision.weight_to)}`;
      return [clock(decision.at_ms), `${word} ${shift}`, decision.reason];
    }
    const step = steps.findLast(([from]) => from <= at);
    return [clock(at, false), step ? `${percent(step[1])} on the canary` : "nothing recorded"];
  }

  showNumbers() {
    const { data } = this;
    if (!this.numbers.open || !data) return;
    const heads = data.metrics.map((metric) => el("th", { scope: "colgroup", colspan: 2 }, metric.title));
    const arms = data.metrics.flatMap(() => ["legacy", "canary"].map((arm) => el("th", { scope: "col" }, arm)));
    const rows = data.at_ms.map((at, place) => {
      const cells = data.metrics.flatMap((metric) =>
        ["legacy", "canary"].map((arm) => el("td", {}, valueOf(metric.unit, metric[arm][place]))),
      );
      return el("tr", {}, el("th", { scope: "row" }, clock(at, false)), ...cells);
    });
    const table = el(
      "table",
      { class: "wide" },
      el("caption", { class: "unseen" }, "Values of all charts"),
      el("thead", {}, el("tr", {}, el("td", { rowspan: 2 }), ...heads), el("tr", {}, ...arms)),
      el("tbody", {}, ...rows.reverse()),
    );
    this.numbers.lastElementChild.replaceChildren(table);
  }
}

function key(kind) {
  const { tone } = kindOf(kind);
  const words = { start: "up", trip: "stopped", hold: "held", "set-weight": "by hand" };
  return el("span", {}, el("span", { class: "glyph", "data-tone": tone, "data-kind": kind }), words[kind]);
}

function readout(arm) {
  return el("span", {}, el("span", { class: `dot ${arm}`, "aria-hidden": "true" }), el("span", { class: "unseen" }, `${arm} `), el("b"));
}

function nearest(times, at) {
  let best = -1;
  for (const [place, time] of times.entries()) {
    if (best < 0 || Math.abs(time - at) < Math.abs(times[best] - at)) best = place;
  }
  return best;
}

/** A drawing with a crosshair that mouse, finger and arrow keys move. */
function figure(name, title, charts) {
  const line = el("div", { class: "cross", hidden: true });
  const tip = el("div", { class: "tip", role: "status", hidden: true });
  const place = el("div", { class: "place" });
  const node = el(
    "figure",
    { class: "chart", tabindex: 0, role: "group", "aria-label": `${title}: chart; arrow keys read its values` },
    place,
    line,
    tip,
  );
  const made = { name, node, place };
  let at = null;
  let plot = null;

  const scale = () => (place.firstElementChild?.clientWidth || place.clientWidth) / plot.whole;
  const timeAt = (x) => {
    const share = (x / scale() - plot.left) / plot.width;
    return plot.from + Math.min(1, Math.max(0, share)) * (plot.to - plot.from);
  };

  made.draw = (svg) => {
    const parsed = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
    if (parsed.nodeName !== "svg") return;
    const { left, top, width, height, from, to } = parsed.dataset;
    plot = { left: +left, top: +top, width: +width, height: +height, from: +from, to: +to, whole: parsed.width.baseVal.value };
    place.replaceChildren(document.importNode(parsed, true));
    if (at !== null) charts.point(at, made);
  };
  made.spanOf = (px) => (plot ? (px / scale() / plot.width) * (plot.to - plot.from) : 0);
  made.cross = (time, told) => {
    const isShown = plot && time !== null && time >= plot.from && time <= plot.to;
    line.hidden = !isShown;
    tip.hidden = !isShown || !told;
    if (!isShown) return;
    const x = (plot.left + ((time - plot.from) / (plot.to - plot.from)) * plot.width) * scale();
    line.style.left = `${x}px`;
    line.style.top = `${plot.top * scale()}px`;
    line.style.height = `${plot.height * scale()}px`;
    if (!told) return;
    tip.replaceChildren(...told.map((text, number) => el(number === 0 ? "b" : "span", {}, text)));
    const isRight = x > node.clientWidth / 2;
    tip.style.left = isRight ? "auto" : `${x + 10}px`;
    tip.style.right = isRight ? `${node.clientWidth - x + 10}px` : "auto";
  };
  const move = (time) => {
    at = time;
    charts.point(time, time === null ? null : made);
  };
  node.addEventListener("pointermove", (event) => {
    if (plot) move(timeAt(event.clientX - place.getBoundingClientRect().left));
  });
  node.addEventListener("pointerleave", () => move(null));
  node.addEventListener("blur", () => move(null));
  node.addEventListener("keydown", (event) => {
    if (!plot || !charts.data) return;
    const times = name === "weight" ? charts.data.weight.decisions.map((one) => one.at_ms) : charts.data.at_ms;
    const now = at === null ? times.length : nearest(times, at);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: times.length - 1 }[event.key];
    if (event.key === "Escape") move(null);
    if (next === undefined || times.length === 0) return;
    event.preventDefault();
    move(times[Math.min(times.length - 1, Math.max(0, next))]);
  });
  return made;
}
