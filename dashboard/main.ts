import { drawChart } from "./chart.js";
import { duration, figure, RunState, type TimedEvent, type WorkerRow } from "./run-state.js";

const state: { run: RunState } = { run: new RunState() };
let isConnected = false;
let isDrawPlanned = false;

function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`The page has no element ${id}`);
  return found;
}

/** At most one drawing a frame, however many events come; none while the page is hidden. */
function planDraw(): void {
  if (isDrawPlanned) return;
  isDrawPlanned = true;
  requestAnimationFrame(() => {
    isDrawPlanned = false;
    draw(state.run);
  });
}

function draw(run: RunState): void {
  const { started, lastStep } = run;
  const total = lastStep?.totalSteps ?? started?.totalSteps ?? 0;
  const done = run.stepsMade;
  if (started !== undefined) {
    byId("run-name").textContent = started.runName;
    byId("run-facts").textContent =
      `${(started.numParameters / 1e6).toFixed(1)} million parameters, ` +
      `${started.numTrainRows.toLocaleString("en")} rows of ${started.sequenceLength} tokens, ` +
      `${started.globalBatchSize} row${started.globalBatchSize === 1 ? "" : "s"} a step in ` +
      `${started.gradientGroups} group${started.gradientGroups === 1 ? "" : "s"}`;
  }
  const phase = byId("phase");
  phase.textContent = isConnected ? run.phase.replaceAll("-", " ") : "not connected";
  phase.className = `badge ${run.phase === "finished" ? "done" : run.phase === "failed" || !isConnected ? "failed" : ""}`;
  phase.title = run.detail;
  const percent = total === 0 ? 0 : Math.round((100 * done) / total);
  const progress = byId("progress");
  progress.setAttribute("aria-valuenow", String(percent));
  const filled = progress.firstElementChild;
  if (filled instanceof HTMLElement) filled.style.width = `${percent}%`;
  document.title = total === 0 ? "Lockstep" : `${done}/${total} · Lockstep`;

  const left = run.secondsLeft();
  const evaluation = run.evaluations.at(-1);
  const set = (id: string, text: string | undefined): void => {
    byId(`figure-${id}`).textContent = text ?? "–";
  };
  set("step", total === 0 ? undefined : `${done} / ${total}`);
  set("loss", lastStep && figure(lastStep.loss));
  set("validation", evaluation && figure(evaluation.y));
  set("tokens", lastStep && Math.round(lastStep.tokensPerSecond).toLocaleString("en"));
  set("norm", lastStep && figure(lastStep.gradientNorm, 3));
  set("rate", lastStep && lastStep.learningRate.toExponential(2));
  set("sync", lastStep && `${lastStep.syncSeconds.toFixed(2)} s`);
  set("left", left === undefined ? undefined : duration(left));

  const xMax = total;
  const fine = (value: number): string => value.toFixed(3);
  const whole = (value: number): string => Math.round(value).toLocaleString("en");
  drawChart(byId("chart-loss"), run.losses, run.evaluations, {
    width: widthOf("chart-loss"),
    height: 260,
    format: fine,
    xMax,
  });
  const small = { width: widthOf("chart-tokens"), height: 170, xMax };
  drawChart(byId("chart-tokens"), run.tokensPerSecond, [], { ...small, format: whole });
  drawChart(byId("chart-norm"), run.gradientNorms, [], { ...small, format: fine });
  drawWorkers([...run.workers.values()]);
  drawSamples(run);
  byId("events").replaceChildren(
    ...run.lines.map(({ timeMs, text, isBad }) => {
      const item = tag("li", text, isBad ? "bad" : "");
      const time = tag("time", new Date(timeMs).toLocaleTimeString());
      item.prepend(time);
      return item;
    }),
  );
}

/** Charts are drawn in the pixels that they get, so that their text keeps its size. */
function widthOf(id: string): number {
  return Math.max(240, byId(id).clientWidth);
}

function drawWorkers(workers: readonly WorkerRow[]): void {
  if (workers.length === 0) {
    byId("workers").replaceChildren(tag("p", "none yet", "quiet"));
    return;
  }
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const [title, style] of [
    ["Worker", ""],
    ["State", ""],
    ["Work", "optional"],
    ["Busy", ""],
    ["Memory", ""],
    ["Device", "optional"],
  ] as const) {
    head.append(tag("th", title, style));
  }
  const body = table.createTBody();
  for (const worker of workers) {
    const row = body.insertRow();
    row.append(
      tag("td", worker.workerId),
      tag("td", worker.state, `state state-${worker.state}`),
      tag("td", worker.state === "idle" ? "" : worker.work, "optional"),
    );
    const busy = tag("td", "");
    const { telemetry } = worker;
    if (telemetry !== undefined) {
      const meter = document.createElement("meter");
      meter.value = telemetry.utilization;
      busy.append(meter, `${Math.round(100 * telemetry.utilization)} %`);
    }
    const memory =
      telemetry === undefined ? "" : `${(telemetry.memoryUsedBytes / 1e9).toFixed(2)} GB`;
    row.append(busy, tag("td", memory), tag("td", worker.device, "optional"));
  }
  byId("workers").replaceChildren(table);
}

function drawSamples(run: RunState): void {
  byId("samples-section").hidden = run.samples.length === 0;
  byId("samples").replaceChildren(
    ...run.samples.flatMap(({ step, prompt, text, isChat }) => {
      const quote = document.createElement("blockquote");
      if (isChat) quote.append(tag("p", `user: ${prompt}`, "quiet"), `assistant: ${text}`);
      else quote.append(tag("span", prompt, "quiet"), text);
      return [
        tag(
          "p",
          step === 0 ? "before training" : `after ${step} step${step === 1 ? "" : "s"}`,
          "quiet",
        ),
        quote,
      ];
    }),
  );
}

/** Text only: nothing that a model or a host wrote is read as HTML. */
function tag(name: string, text: string, className = ""): HTMLElement {
  const created = document.createElement(name);
  created.textContent = text;
  if (className !== "") created.className = className;
  return created;
}

/** After which a page that was turned away comes again. */
const comeAgainMs = 2_000;

function connect(): void {
  const source = new EventSource("events");
  source.addEventListener("reset", () => {
    state.run = new RunState();
    isConnected = true;
    planDraw();
  });
  source.addEventListener("message", (message: MessageEvent<string>) => {
    state.run.apply(JSON.parse(message.data) as TimedEvent);
    planDraw();
  });
  source.addEventListener("error", () => {
    isConnected = false;
    planDraw();
    // What broke is opened again by the browser; what was refused is not.
    if (source.readyState === EventSource.CLOSED) void comeBack();
  });
}

/** Signed out, as after a restart, the page becomes the form; otherwise the stream is tried again. */
async function comeBack(): Promise<void> {
  const answer = await fetch("./", { redirect: "manual" }).catch(() => undefined);
  if (answer?.type === "opaqueredirect") location.reload();
  else setTimeout(connect, comeAgainMs);
}

addEventListener("resize", planDraw);
draw(state.run);
connect();
