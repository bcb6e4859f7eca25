import { replayShare, type ResolvedConfig, reservedTaskName } from "#lib/config/index";
import { counted } from "#lib/core/format";
import type { TaskJob } from "#lib/core/job";
import type { PlanPart } from "#lib/data/index";
import type { LossTermsSettings } from "#lib/optim/index";
import type { GeneralData } from "./general-data.js";
import { type LearntTask, shareBesideReplay, sharesOf, taskJobs } from "./prepare-tasks.js";
import { weighedRows } from "./weighed-rows.js";

/** How the rows of a run are mixed, and their losses added. */
interface Mixture {
  readonly parts: readonly [PlanPart, ...PlanPart[]];
  /** Undefined where batches are of one task. */
  readonly tasks: readonly TaskJob[] | undefined;
  /** Undefined where the loss is one mean. */
  readonly terms: LossTermsSettings | undefined;
  /** For a person. */
  readonly lines: readonly string[];
}

/** The tasks of a run and its replayed rows, as the plan and the workers know them. */
export function mixtureOf(
  config: ResolvedConfig,
  learnt: readonly LearntTask[],
  general: GeneralData | undefined,
  /** The task whose form general rows have. */
  ofTask: number,
): Mixture {
  const shares = sharesOf(config, learnt, shareBesideReplay(config));
  const parts = learnt.map(
    ({ dataset, learnt: objective, objective: job }, index): PlanPart => ({
      rows: weighedRows(dataset.train.rows, objective, job),
      task: index,
      term: index,
      share: shares[index] ?? 1,
    }),
  );
  const terms = learnt.map(({ name = "main", learnt: { isSquaredError = false } }) => ({
    name,
    weight: config.tasks?.[name]?.weight ?? 1,
    ...(config.task_weighting === "uncertainty" ? { uncertainty: isSquaredError ? 0.5 : 1 } : {}),
  }));
  const jobs = [...taskJobs(learnt)];
  const replayed = replayShare(config);
  if (replayed !== undefined && general !== undefined) {
    const { rows } = general.dataset.train;
    const weight = config.replay_weight;
    const share = replayed;
    if (weight === null) parts.push({ rows, task: 0, term: 0, share, isReplay: true });
    else {
      parts.push({ rows, task: jobs.length, term: terms.length, share, isReplay: true });
      terms.push({ name: reservedTaskName, weight });
      const own = jobs[ofTask] as TaskJob;
      jobs.push({ ...own, name: reservedTaskName, isEvaluated: false });
    }
  }
  const isOne = terms.length === 1;
  return {
    parts: parts as [PlanPart, ...PlanPart[]],
    tasks: isOne ? undefined : jobs,
    terms: isOne ? undefined : { terms, termOfTask: terms.map((_, index) => index) },
    lines: describe(config, parts, terms),
  };
}

function describe(
  config: ResolvedConfig,
  parts: readonly PlanPart[],
  terms: LossTermsSettings["terms"],
): readonly string[] {
  const percent = (share: number): string => `${Number((100 * share).toFixed(2))} %`;
  const lines =
    terms.length < 2
      ? []
      : terms.map(({ name, weight, uncertainty }, term) => {
          const share = parts.find((part) => part.term === term)?.share ?? 0;
          const weighed =
            uncertainty === undefined ? `weight ${weight}` : "a weight that is learnt";
          return `task ${name}: ${percent(share)} of the rows of a step, ${weighed}, a mean of its own`;
        });
  const replay = parts.find(({ isReplay = false }) => isReplay);
  const replayLine =
    replay === undefined || terms.length > 1
      ? []
      : [
          `replay: ${percent(replay.share)} of the rows of a step are general ones, in one mean with the others`,
        ];
  if (parts.length < 2) return [];
  const { global_batch_size: numRows, per_device_train_batch_size: batch } = config;
  const numBatches = parts.reduce(
    (sum, { share }) => sum + Math.ceil((share * numRows) / batch - 1e-9),
    0,
  );
  const padding =
    numBatches * batch > numRows
      ? [
          `a micro-batch holds rows of one kind: of a step's ${counted(numRows, "row")} there are ${numBatches} micro-batches of ${batch}, partly padding`,
        ]
      : [];
  return [...lines, ...replayLine, ...padding];
}
