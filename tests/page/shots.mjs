// Pictures of the dashboard for the documentation: a migration half-way, tripped, and rolled back.
//
//   node tests/page/shots.mjs [folder, else target/pictures]        after `cargo build`; takes about ten minutes
//
// All that is seen is real: the daemon decides by itself, only the providers' faults are played.

import { copyFileSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { start, wait } from "./world.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const folder = process.argv[2] ?? join(here, "../../target/pictures");
/** Those that the documentation shows. */
const SHOWN = ["healthy-light", "healthy-dark", "healthy-phone", "tripped-light"];
const binary = process.env.CUTOVER ?? join(here, "../../target/debug/cutover");
const executablePath = process.env.CUTOVER_CHROMIUM ?? "/usr/bin/chromium";
const MINUTE = 60000;

const LOOKS = [
  { name: "light", colorScheme: "light", viewport: { width: 1280, height: 1330 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 1280, height: 1330 } },
  { name: "phone", colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
];

mkdirSync(folder, { recursive: true });
const stages = [["20%", "60s"], ["35%", "60s"], ["50%", "20m"], ["75%", "20m"], ["100%", "20m"]];
const world = await start({ binary, stages });
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-quic"] });
console.log(world.url);

async function shoot(state) {
  for (const { name, ...look } of LOOKS) {
    const page = await browser.newPage(look);
    await page.goto(world.url);
    await page.locator(".place svg").nth(8).waitFor();
    await wait(1200);
    await page.screenshot({ path: join(folder, `dashboard-${state}-${name}.png`) });
    await page.screenshot({ path: join(folder, `whole-${state}-${name}.png`), fullPage: true });
    await page.close();
  }
  console.log(state);
}

try {
  await world.until("half-way", (rollout) => rollout.weight === 0.5);
  await wait(2 * MINUTE);
  await shoot("healthy");
  world.canary.isDown = true;
  await world.until("tripped", (rollout) => rollout.state === "tripped");
  await wait(20000);
  await shoot("tripped");
  world.canary.isDown = false;
  await world.until("back", (rollout) => rollout.weight > 0);
  await wait(MINUTE);
  // The second trip of a day is a rollback.
  world.canary.isDown = true;
  await world.until("rolled back", (rollout) => rollout.state === "rolled-back");
  await wait(15000);
  await shoot("rolled-back");
  for (const name of SHOWN) {
    const picture = `dashboard-${name}.png`;
    copyFileSync(join(folder, picture), join(here, "../../docs/pictures", picture));
  }
} finally {
  await browser.close();
  await world.stop();
}
