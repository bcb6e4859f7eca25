import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { chromium, type Page } from "playwright-core";
import { Registry } from "prom-client";
import { scriptedRun } from "#bench/display/scripted-run";
import { CoordinatorHttp } from "#coordinator/http";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { needs, toolPath } from "#tests/support/tools";

const viewport = { width: 1_100, height: 1_300 };

const text = async (page: Page, selector: string): Promise<string> =>
  (await page.locator(selector).textContent())?.trim() ?? "";

interface Served {
  readonly bus: InProcessEventBus;
  readonly url: string;
  /** Ends the server, and has another one take its place. */
  readonly restart: () => Promise<void>;
  /** What the browser's console told as errors so far; handed over, so that the rest is none. */
  readonly takeProblems: () => readonly string[];
}

async function withPage(
  token: string | undefined,
  body: (page: Page, served: Served) => Promise<void>,
): Promise<void> {
  const bus = new InProcessEventBus();
  const open = (port: number): CoordinatorHttp =>
    new CoordinatorHttp({
      ...{ host: "127.0.0.1", port, registry: new Registry(), isReady: () => true, bus },
      ...(token === undefined ? {} : { token }),
    });
  let http = open(0);
  const port = await http.listen();
  const profile = await mkdtemp(join(tmpdir(), "lockstep-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: toolPath("chromium"),
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
    viewport,
  });
  try {
    const page = await context.newPage();
    const problems: string[] = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    const url = `http://127.0.0.1:${port}/`;
    const restart = async (): Promise<void> => {
      await http.close();
      http = open(port);
      await http.listen();
    };
    await page.goto(url);
    await body(page, { bus, url, restart, takeProblems: () => problems.splice(0) });
    assert.deepEqual(problems, []);
    await screenshots(page, token === undefined ? "run" : "signed-out");
  } finally {
    await context.close();
    await http.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** For a person's eyes: LOCKSTEP_SCREENSHOTS names a directory. */
async function screenshots(page: Page, name: string): Promise<void> {
  const directory = process.env.LOCKSTEP_SCREENSHOTS;
  if (directory === undefined) return;
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await writeFile(join(directory, `${name}-${colorScheme}.png`), await page.screenshot());
  }
  await page.setViewportSize({ width: 400, height: 1_200 });
  await writeFile(join(directory, `${name}-narrow.png`), await page.screenshot());
  await page.setViewportSize(viewport);
}

test("the page follows a run over its stream of events", needs("chromium"), async () => {
  await withPage(undefined, async (page, { bus }) => {
    const events = [...scriptedRun({ loseWorkerAtStep: 4 })].map(({ event }) => event);
    const half = events.findIndex((event) => event.type === "step.completed" && event.step === 7);
    await page.locator("#phase", { hasText: "waiting" }).waitFor();
    for (const event of events.slice(0, half + 1)) bus.publish(event);
    await page.locator("#figure-step", { hasText: "7 / 14" }).waitFor();
    assert.equal(await text(page, "#phase"), "training");
    assert.equal(await text(page, "#run-name"), "SmolLM2-135M-Instruct on sotu");
    assert.equal(await page.locator("#progress").getAttribute("aria-valuenow"), "50");
    const points = await page.locator("#chart-loss .line").getAttribute("points");
    assert.equal(points?.split(" ").length, 7);
    assert.equal(await page.locator("#workers tbody tr").count(), 2);
    assert.equal(await text(page, "#workers .state-lost"), "lost");

    // A page that opens now is told what happened before.
    await page.reload();
    await page.locator("#figure-step", { hasText: "7 / 14" }).waitFor();
    assert.equal(await text(page, "#figure-validation"), "3.5123");

    for (const event of events.slice(half + 1)) bus.publish(event);
    await page.locator("#phase", { hasText: "finished" }).waitFor();
    assert.equal(await text(page, "#figure-validation"), "3.3391");
    assert.equal(await page.locator("#samples blockquote").count(), 2);
    assert.equal(await page.locator("#chart-loss .dots circle").count(), 2);
  });
});

test(
  "what a model wrote is text, not HTML; a loss that is not finite is shown",
  needs("chromium"),
  async () => {
    await withPage(undefined, async (page, { bus }) => {
      const hostile = "<img src=x onerror=\"document.title='hacked'\"><script>alert(1)</script>";
      bus.publish({ type: "sample.generated", step: 0, prompt: hostile, text: hostile });
      bus.publish({
        type: "step.completed",
        step: 1,
        totalSteps: 2,
        epoch: 0,
        loss: Number.NaN,
        learningRate: 0,
        gradientNorm: Number.POSITIVE_INFINITY,
        numRows: 1,
        numTokens: 1,
        stepSeconds: 1,
        syncSeconds: 0,
        tokensPerSecond: 1,
      });
      await page.locator("#figure-loss", { hasText: "NaN" }).waitFor();
      assert.equal(await text(page, "#figure-norm"), "Infinity");
      assert.equal(await text(page, "#samples blockquote"), hostile + hostile);
      assert.equal(await page.locator("#samples img").count(), 0);
      assert.equal(await page.title(), "1/2 · Lockstep");
    });
  },
);

test(
  "the form takes the token, and scripts and addresses do not have it",
  needs("chromium"),
  async () => {
    const token = "0123456789abcdef";
    await withPage(token, async (page, { bus, url, restart, takeProblems }) => {
      await page.locator("#token").waitFor();
      assert.equal(page.url(), `${url}login`);
      await screenshots(page, "login");
      await page.locator("#token").fill("wrong");
      await page.locator("button").click();
      await page.locator("#problem", { hasText: "The token is wrong." }).waitFor();
      assert.match(takeProblems().join(), /^[^,]* 401 [^,]*$/);

      // A link of old, which a person has kept.
      await page.goto(`${url}#token=${token}`);
      await page.locator("#link-token", { hasText: "has a token in it" }).waitFor();
      assert.equal(page.url(), `${url}login`);
      await page.locator("#token").fill(token);
      await page.locator("button").click();
      await page.locator("#phase", { hasText: "waiting" }).waitFor();
      assert.equal(page.url(), url);
      const cookies = await page.context().cookies();
      assert.deepEqual(
        cookies.map(({ httpOnly, sameSite }) => ({ httpOnly, sameSite })),
        [{ httpOnly: true, sameSite: "Strict" }],
      );
      assert.ok(!cookies[0]?.value.includes(token));
      assert.equal(await page.evaluate("document.cookie"), "");
      bus.publish({ type: "note", text: "over the stream" });
      bus.publish({ type: "phase.changed", phase: "training" });
      await page.locator("#phase", { hasText: "training" }).waitFor();
      assert.deepEqual(takeProblems(), []);

      // Another process knows no session of this one.
      await restart();
      await page.locator("#token").waitFor();
      assert.equal(page.url(), `${url}login`);
      takeProblems();
    });
  },
);
