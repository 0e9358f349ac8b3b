import AxeBuilder from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { browserPath, openBrowser } from "../../support/browser.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { freePort } from "../../support/free-port.ts";
import { start, type Running } from "../../support/replicate.ts";

// A whole migration by clicks alone, in a real browser, while an application writes; the process that serves the page is
// killed in each phase and started again.

let pair: Pair;
let browser: Browser;
let page: Page;
let server: Running | undefined;
let address: string;
const problems: string[] = [];

beforeEach(async () => {
  pair = await freePair({ leaks: "ignore" });
  await pair.source.sql(`
    create table customer (id serial primary key, name text not null);
    create table invoice (id bigserial primary key, customer int references customer, note text);
    create index on invoice (customer);
    insert into customer (name) select 'customer ' || n from generate_series(1, 500) n;
    insert into invoice (customer, note) select 1 + n % 500, repeat('x', 50) from generate_series(1, 20000) n`);
  address = `127.0.0.1:${await freePort()}`;
});
afterEach(async () => {
  server?.child.kill("SIGKILL");
  await server?.finished;
  await browser?.close();
  await pair.dispose();
});

async function serve(): Promise<void> {
  server = start(["serve", "--allow-actions", "--listen", address], {
    env: { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url },
  });
  await server.says("the console is at");
}

async function killAndServeAgain(): Promise<void> {
  server?.child.kill("SIGKILL");
  await server?.finished;
  await serve();
  // The page finds the new process by itself.
  await page.getByText("up to date").waitFor({ timeout: 60_000 });
}

/** Clicks an action, and answers what it asks. */
async function act(label: string, confirm: "no" | "yes" | "name" = "no"): Promise<void> {
  await page.getByRole("button", { name: label, exact: true }).first().click({ timeout: 60_000 });
  if (confirm === "no") return;
  const dialog = page.getByRole("dialog");
  if (confirm === "name") {
    expect(await dialog.getByRole("button", { name: label, exact: true }).isDisabled()).toBe(true);
    await dialog.getByRole("textbox").fill("default");
  }
  await dialog.getByRole("button", { name: label, exact: true }).click();
}

async function shows(text: string | RegExp): Promise<void> {
  await page.getByText(text).first().waitFor({ timeout: 90_000 });
}

const inPhase = (phase: string): Promise<void> => shows(`default: ${phase}`);

/** What axe finds wrong for people who do not see, or see badly. */
async function expectAccessible(): Promise<void> {
  await page.evaluate(AxeBuilder.source);
  const found = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }; // prettier-ignore
    const { violations } = await axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html ?? ""}`);
  });
  expect(found).toEqual([]);
}

describe.skipIf(browserPath === undefined)("in a browser", () => {
  beforeEach(async () => {
    browser = await openBrowser();
    page = await browser.newPage();
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("request", (request) => {
      const { host, protocol } = new URL(request.url());
      if (protocol.startsWith("http") && host !== address) problems.push(`asks ${host}`);
    });
    problems.length = 0;
  });

  it("moves a database, there and back and there again", { timeout: 600_000 }, async () => {
    await serve();
    await page.goto(`http://${address}/`);
    await act("Preflight");
    await shows("is missing on the target");
    await expectAccessible();
    await act("Create schema", "yes");
    await shows("the schema is on the target");
    await act("Start", "yes");
    await killAndServeAgain();
    // What was killed before it had written anything down is to be asked for again.
    const start = page.getByRole("button", { name: "Start", exact: true });
    const goesOn = page.getByRole("button", { name: /^(Pause|Resume)$/ });
    await start.or(goesOn).first().waitFor();
    if (await start.isVisible()) await act("Start", "yes");
    await inPhase("following");
    await expectAccessible();

    let isWriting = true;
    let written = 0;
    const writer = (async () => {
      while (isWriting) {
        try {
          await pair.source.sql("insert into invoice (customer, note) values (1, 'live')");
          written++;
        } catch {
          // Refused by the fence: the application goes to the new side.
          break;
        }
      }
    })();
    await act("Verify");
    await shows(/^equal$/);
    await killAndServeAgain();
    await act("Rehearse");
    await shows("Readiness for the switch");
    await act("Switch", "name");
    await inPhase("cut-over");
    isWriting = false;
    await writer;
    expect(written).toBeGreaterThan(0);
    const count = "select count(*)::int as n from invoice";
    expect(await pair.target.sql(count)).toEqual([{ n: 20_000 + written }]);
    await pair.target.sql("insert into customer (id, name) values (100000, 'new on the target')");
    await killAndServeAgain();
    await expectAccessible();
    await act("Roll back", "name");
    await inPhase("following");
    expect(await pair.source.sql("select name from customer where id = 100000")).toEqual([
      { name: "new on the target" },
    ]);
    await act("Abort", "name");
    await shows("knows no sync named default");
    for (const side of [pair.source, pair.target])
      expect(await side.sql("select nspname from pg_namespace where nspname = 'replicate'")).toEqual([]);
    expect(problems).toEqual([]);
  });

  it.each([
    ["phone", 390, 844],
    ["wide screen", 2560, 1200],
  ])("fits a %s, light and dark", async (_name, width, height) => {
    await serve();
    await page.setViewportSize({ width, height });
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      await page.goto(`http://${address}/`);
      await act("Preflight");
      await shows("is missing on the target");
      await expectAccessible();
      const overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
      expect(overflow).toBeLessThanOrEqual(0);
    }
    expect(problems).toEqual([]);
  });
});
