// Making and changing elements. Data becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `on` holds listeners, `class` its classes; children are nodes or texts. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else {
      attr(node, name, value);
    }
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Sets an attribute if it differs; `null` and `false` remove it. */
export function attr(node, name, value) {
  if (value == null || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Sets the text if it differs, so that a screen reader does not read the same again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The same, with `code` between backticks. */
export function sayMarked(node, text) {
  if (node.textContent === text.replaceAll("`", "")) return;
  node.replaceChildren(
    ...text.split("`").map((part, place) => (place % 2 === 0 ? part : el("code", {}, part))),
  );
}

/** One child per item, found again by its key; order is that of the items. */
export function keyed(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = old.get(key);
    if (node) {
      old.delete(key);
    } else {
      node = make(item);
      node.dataset.key = key;
    }
    update(node, item);
    if (node === next) {
      next = next.nextElementSibling;
    } else {
      parent.insertBefore(node, next);
    }
  }
  for (const node of old.values()) node.remove();
}

const ICONS = {
  play: ["M5 3.2v9.6l7.6-4.8z"],
  pause: ["M4.5 3h2.4v10H4.5zM9.1 3h2.4v10H9.1z"],
  bolt: ["M9.2 1 3.4 9.2h3.8L6.6 15l6-8.4H8.6z"],
  down: ["M8 13.4 3 7.6h3.4V2.6h3.2v5H13z"],
  up: ["M8 2.6l5 5.8H9.6v5H6.4v-5H3z"],
  back: ["M6.6 2.2 2.4 6.4l4.2 4.2V7.8h2.6a2.4 2.4 0 0 1 0 4.8H6v2h3.2a4.4 4.4 0 0 0 0-8.8H6.6z"],
  check: ["M6.4 12.6 2 8.2l1.6-1.6 2.8 2.8 6-6L14 5z"],
  clock: ["M8 1.6a6.4 6.4 0 1 0 0 12.8A6.4 6.4 0 0 0 8 1.6zm.9 6.1 2.7 1.9-.9 1.3-3.4-2.4V4.2h1.6z"],
  stop: ["M3.4 3.4h9.2v9.2H3.4z"],
  cross: ["M4 2.6 8 6.6l4-4L13.4 4l-4 4 4 4-1.4 1.4-4-4-4 4L2.6 12l4-4-4-4z"],
  warn: ["M8 1.6 15 14H1zM7.2 6v4h1.6V6zm0 5v1.6h1.6V11z"],
  person: ["M8 1.8a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM2.6 14c.3-3.4 2.3-5.2 5.4-5.2s5.100 1.800 5.400 5.200z"],
  dash: ["M3 7h10v2H3z"],
  key: ["M10.600 2a3.600 3.600 0 0 0-3.400 4.800L2 12v2h3v-1.600h1.600v-1.600h1.500l.9-.9A3.600 3.600 0 1 0 10.600 2zm1 3.700a1.100 1.100 0 1 1 0-2.200 1.100 1.100 0 0 1 0 2.200z"],
};

/** A picture beside a word that says the same. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  for (const d of ICONS[name] ?? ICONS.dash) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    path.setAttribute("fill-rule", "evenodd");
    svg.append(path);
  }
  return svg;
}

/** Puts icon and word into a node, if they differ. */
export function badge(node, iconName, word, tone) {
  const is = `${iconName}/${word}`;
  if (node.dataset.is !== is) {
    node.dataset.is = is;
    node.replaceChildren(icon(iconName), el("span", {}, word));
  }
  attr(node, "data-tone", tone);
}

/** JSON of an address of this daemon. Fails with the daemon's own sentence; `signal` gives it up. */
export async function getJson(path, signal) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, signal });
  const body = await answer.json().catch(() => null);
  if (!answer.ok) {
    const failed = new Error(body?.error?.message ?? `the answer is ${answer.status}`);
    failed.status = answer.status;
    throw failed;
  }
  return body;
}
