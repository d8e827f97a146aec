// Looks at the dashboard as an operator would, in a real browser, and fails with what is wrong.
//
// Environment: BASE (the admin port), TOKEN (its token), CUTOVER_CHROMIUM. What only the other side can do
// is asked for on standard output (`do restart`), and the next line of standard input says that it is done.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { BASE, TOKEN, CUTOVER_CHROMIUM = "/usr/bin/chromium" } = process.env;
const QUIET = "quic,no-first-run,background-networking,component-update,sync,gpu";
const FLAGS = ["--no-sandbox", ...QUIET.split(",").map((name) => `--disable-${name}`), "--no-first-run"];
const PATIENCE = 20000;
const axe = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function demand(what) {
  console.log(`do ${what}`);
  const { value } = await answers.next();
  assert.equal(value, "done", what);
}
const say = (text) => console.error(`  ${text}`);

const browser = await chromium.launch({ executablePath: CUTOVER_CHROMIUM, args: FLAGS });

/** A page whose every complaint is kept. `expected` matches those that the check itself provokes. */
async function opened(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.complaints = [];
  page.expected = null;
  const complain = (text) => {
    if (!page.expected?.test(text)) page.complaints.push(text);
  };
  page.on("pageerror", (error) => complain(`error: ${error.message}`));
  page.on("console", (line) => {
    if (line.type() === "error" || line.type() === "warning") complain(`console: ${line.text()}`);
  });
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== "data:" && origin !== new URL(BASE).origin) complain(`asks ${request.url()}`);
  });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  page.settle = async () => {
    page.complaints.push(...(await page.evaluate(() => window.violations)));
    assert.deepEqual(page.complaints, []);
  };
  await page.goto(BASE);
  await page.getByText("of the traffic on the canary").first().waitFor();
  return page;
}

const headline = (page) => page.getByRole("heading", { level: 2 }).first();
const state = (page) => page.locator(".pill");
const button = (page, name) => page.locator(".hero").getByRole("button", { name, exact: false });
const dialog = (page) => page.getByRole("dialog");
const shows = (locator, text) => locator.filter({ hasText: text }).first().waitFor();

/** Presses the button, gives a reason, confirms. */
async function operate(page, name, reason, confirm) {
  await button(page, name).click();
  await dialog(page).getByLabel("Reason").fill(reason);
  await dialog(page).getByRole("button", { name: confirm }).click();
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const found = await page.evaluate(() =>
    axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  const words = found.violations.map(
    (one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`,
  );
  assert.deepEqual(words, [], what);
  assert.ok(found.passes.length > 20, `${what}: only ${found.passes.length} rules had something to look at`);
}

const page = await opened();

say("it loads and is live");
await shows(headline(page), "50% of the traffic on the canary");
await shows(page.locator("#live-chip"), /^live$/);
await shows(page.locator("#store-chip"), "store ok");
await page.locator(".place svg").nth(8).waitFor();
assert.equal(await page.locator(".place svg").count(), 9);
assert.equal(await page.locator(".guard").count(), 1);
await shows(page.locator(".arms tr").nth(1), /Requests\s*\d/);
assert.match(await page.title(), /^50% running/);

say("a change shows within seconds, and is said to those who listen");
await demand("weight 40%");
const changed = Date.now();
await shows(headline(page), "40% of the traffic on the canary");
assert.ok(Date.now() - changed < 5000, `it took ${Date.now() - changed} ms`);
await shows(page.locator("#said"), "40% on the canary");
await shows(page.locator(".decisions summary").first(), /set weight.*50% → 40%/s);

say("the token is asked for, a wrong one refused, the right one kept; markup is text");
const hostile = "<img src=x onerror=\"document.title='broken'\"> `code`";
page.expected = /status of 401/;
await operate(page, "Hold", hostile, "Hold");
await shows(page.getByRole("alert"), "needs the admin token");
await dialog(page).getByLabel("Admin token").fill("wrong");
await dialog(page).getByRole("button", { name: "Hold", exact: true }).click();
await shows(page.getByRole("alert"), "not the right one");
await shows(state(page), "running");
await dialog(page).getByLabel("Admin token").fill(TOKEN);
await dialog(page).getByRole("button", { name: "Hold", exact: true }).click();
await shows(state(page), "held");
page.expected = null;
await shows(page.locator(".why-text"), "<img src=x onerror=");
await shows(page.locator(".notice-text"), "<img src=x");
await shows(page.locator(".decisions summary").first(), "hold");
await page.locator(".decisions summary").first().click();
await shows(page.locator(".decisions .parts").first(), "<img src=x");
await shows(page.locator(".decisions .facts").first(), "an operator");

say("every button works, with a reason");
await operate(page, "Resume", "back from lunch", "Resume");
await shows(state(page), "running");
await operate(page, "Set the weight", "", "Set the weight");
await shows(page.getByRole("alert"), "from 0 to 100");
await dialog(page).getByLabel("Share of the canary").fill("45");
await dialog(page).getByRole("button", { name: "Set the weight" }).click();
await shows(page.getByRole("alert"), "Say why");
await dialog(page).getByLabel("Reason").fill("load test");
await dialog(page).getByRole("button", { name: "Set the weight" }).click();
await shows(headline(page), "45% of the traffic");
await button(page, "Promote").click();
await shows(dialog(page), "45% → 50%");
await dialog(page).getByRole("button", { name: "Cancel" }).click();
await operate(page, "Promote", "looks well", "Promote now");
await shows(headline(page), "50% of the traffic");
await operate(page, "Roll back", "complaints", "Roll back now");
await shows(state(page), "rolled back");
await shows(page.locator("#notices"), "is rolled back");
await operate(page, "Retry", "mended", "Retry");
await shows(headline(page), "50% of the traffic");
await page.settle();

say("hold by keyboard alone; Escape changes nothing and gives the focus back");
await page.reload();
await shows(state(page), "running");
let presses = 0;
while (!(await page.evaluate(() => document.activeElement?.textContent?.startsWith("Hold")))) {
  await page.keyboard.press("Tab");
  assert.ok(++presses < 15, "the button is not reached");
}
await page.keyboard.press("Enter");
await dialog(page).waitFor();
assert.equal(await page.evaluate(() => document.activeElement.id), "reason-input");
await page.keyboard.press("Escape");
await dialog(page).waitFor({ state: "hidden" });
assert.match(await page.evaluate(() => document.activeElement.textContent), /^Hold/);
await shows(state(page), "running");
await page.keyboard.press("Enter");
await page.keyboard.type("by keyboard");
await page.keyboard.press("Tab");
await page.keyboard.press("Tab");
await page.keyboard.press("Enter");
await shows(state(page), "held");

say("failures are listed, and a model's name is text");
await demand("fail");
const failures = page.locator(".failures tbody tr");
await shows(failures, "<img src=x");
await shows(failures, "server-error");
await shows(failures, "503");
assert.equal(await page.locator("img[src='x'], [onerror]").count(), 0);
assert.doesNotMatch(await page.title(), /broken/);

say("charts answer to mouse, keys and range");
const chart = page.locator(".charts .chart").first();
await chart.hover({ position: { x: 150, y: 60 } });
await chart.locator(".tip").waitFor();
await page.mouse.move(2, 2);
await chart.locator(".tip").waitFor({ state: "hidden" });
await page.locator("figure").first().focus();
await page.keyboard.press("ArrowLeft");
await shows(page.locator("figure .tip").first(), /hold/);
const asks = page.waitForResponse((answer) => answer.url().includes("charts.json") && answer.url().includes("from="));
await page.getByRole("button", { name: "24h" }).click();
assert.equal((await asks).status(), 200);
assert.equal(await page.getByRole("button", { name: "24h" }).getAttribute("aria-pressed"), "true");
await page.getByText("The numbers as a table").click();
await page.locator(".wide tbody tr").first().waitFor();

say("roles, names and contrast, in light and dark, with and without the dialog");
for (const colorScheme of ["light", "dark"]) {
  await page.emulateMedia({ colorScheme });
  await accessible(page, colorScheme);
}
await button(page, "Roll back").click();
await accessible(page, "dialog");
await page.keyboard.press("Escape");
await page.getByRole("button", { name: "Theme" }).click();
assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "light");
await page.settle();

say("a phone needs no scrolling sideways");
const phone = await opened({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
await phone.locator(".place svg").nth(8).waitFor();
const widths = await phone.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
assert.deepEqual(widths, [360, 360]);
await phone.settle();
await phone.close();

say("it says that the daemon is gone, and recovers when it is back");
page.expected = /ERR_|Failed to fetch|status of 503/;
await demand("kill");
await page.locator("#live-chip[data-tone='go']").waitFor({ state: "detached" });
await demand("start");
await shows(page.locator("#live-chip"), /^live$/);
await demand("weight 30%");
await shows(page.locator(".hero"), "30%");
page.expected = null;
await page.settle();
await browser.close();
say("all is well");
// The open standard input would keep it waiting.
process.exit(0);
