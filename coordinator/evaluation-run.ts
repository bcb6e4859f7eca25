import { evaluationFigures } from "#lib/objectives/task-metrics";
import { isDue } from "./due.js";
import { type EvaluationParts, GeneralEvaluation } from "./general-evaluation.js";
import { EvaluationWork, GenerationWork } from "./inference-work.js";
import type { EvaluationResult, GeneratedSample, RunOutcome } from "./options.js";

/**
 * What a run does with the weights that it has come to: evaluations and samples, each in its place before, between
 * and after the steps, kept in the history and told to all who listen. A step is the number of steps completed.
 */
export class EvaluationRun {
  readonly #parts: EvaluationParts;
  readonly #evaluations: EvaluationResult[];
  readonly #samples: GeneratedSample[];
  readonly #general: GeneralEvaluation;
  #evaluatedStep: number | undefined;

  constructor(parts: EvaluationParts) {
    this.#parts = parts;
    const { evaluations = [], samples = [] } = parts.options.recovery?.state ?? {};
    this.#evaluations = [...evaluations];
    this.#samples = [...samples];
    this.#evaluatedStep = evaluations.at(-1)?.step;
    this.#general = new GeneralEvaluation(parts);
  }

  /** Those of this process, not of the checkpoint that it goes on from; and of a coordinator that it takes over from. */
  get results(): Pick<RunOutcome, "evaluations" | "samples"> {
    return { evaluations: [...this.#evaluations], samples: [...this.#samples] };
  }

  /** @param step 0, or where a run goes on */
  async beforeTraining(step: number): Promise<void> {
    const { history, options } = this.#parts;
    const isMissing = step === 0 && !history.hasEvaluation(step);
    if (options.evaluation?.atStart === true && isMissing) await this.#evaluate(step);
    // What was forgotten is counted from here.
    if (step === 0) await this.#general.measure(step);
    if (step === 0) await this.generate(step);
    // One that was stopped while it evaluated saved without that evaluation.
    if (history.hasEvaluation(step)) this.#evaluatedStep = step;
    else if (this.#isDue(step)) await this.#evaluate(step);
    if (this.#isDue(step)) await this.#general.measure(step);
  }

  /** Evaluates where that is due. @returns whether the result is the best so far */
  async afterStep(step: number): Promise<boolean> {
    const { evaluation, plan } = this.#parts.options;
    const isLast = step === plan.totalSteps;
    if (!this.#isDue(step) && !(isLast && evaluation?.atEnd === true)) {
      // The last save has it: where the result is made again from it, no worker is there any more.
      if (isLast) await this.#general.measure(step);
      return false;
    }
    const { history } = this.#parts;
    const isBest =
      this.#evaluatedStep === step ? history.bestStep === step : await this.#evaluate(step);
    await this.#general.measure(step);
    if (!isLast && history.stop === undefined) this.#parts.phases.begin("training");
    return isBest;
  }

  /** Evaluates at the end where that is asked for, and the last step has not. */
  async afterTraining(step: number): Promise<void> {
    const { evaluation } = this.#parts.options;
    if (evaluation?.atEnd === true && this.#evaluatedStep !== step) await this.#evaluate(step);
    if (step > 0) await this.#general.measure(step);
  }

  /** A sample of the step's weights, unless there is one. */
  async generate(step: number): Promise<void> {
    const { options, court, history, phases, updates } = this.#parts;
    const { generation, bus } = options;
    if (generation === undefined || history.hasSample(step)) return;
    phases.begin("generating");
    const { prompt, maxNewTokens, endTokenIds, promptText, isChat = false } = generation;
    const work = new GenerationWork({
      version: updates.numUpdates,
      prompt,
      maxNewTokens,
      endTokenIds,
      leases: this.#parts.newLeases(1),
      onResult: (workerId) => court.brought(workerId),
    });
    const tokens = await this.#parts.carryOut(work, work.completed);
    const text = await generation.decode(tokens);
    const sample = { step, prompt: promptText, text, ...(isChat ? { isChat } : {}) };
    this.#samples.push({ ...sample, tokens });
    history.sampled({ ...sample, tokens });
    bus.publish({ type: "sample.generated", ...sample });
    await this.#parts.kept();
  }

  #isDue(step: number): boolean {
    const { everySteps, delaySteps = 0 } = this.#parts.options.evaluation ?? {};
    return step > 0 && step >= delaySteps && isDue(everySteps, step);
  }

  /** @returns whether the result is the best so far */
  async #evaluate(step: number): Promise<boolean> {
    const { options, court, history, phases, updates } = this.#parts;
    const { evaluation, bus, job } = options;
    if (evaluation === undefined || evaluation.batches.length === 0) return false;
    phases.begin("evaluating");
    const startedAt = performance.now();
    const work = new EvaluationWork({
      step,
      jury: court.juryOf("evaluation", step),
      batches: evaluation.batches,
      version: updates.numUpdates,
      job,
      leases: this.#parts.newLeases(evaluation.batches.length),
    });
    const evaluated = await this.#parts.carryOut(work, work.completed);
    const { loss, weight, metrics } = evaluationFigures(job, updates.terms, evaluated);
    const result: EvaluationResult = {
      step,
      loss,
      weight,
      seconds: (performance.now() - startedAt) / 1000,
      metrics,
    };
    this.#evaluatedStep = step;
    this.#evaluations.push(result);
    const isDue = this.#isDue(step);
    if (isDue) updates.evaluated(result);
    const { isBest, gap } = history.evaluated(result, isDue);
    const { trainLoss, warning } = gap ?? {};
    const ofTraining = trainLoss === undefined ? {} : { trainLoss };
    bus.publish({ type: "evaluation.completed", ...result, ...ofTraining });
    if (warning !== undefined) bus.publish({ type: "note", text: warning });
    await this.#parts.kept();
    return isBest;
  }
}
