import { join } from "node:path";
import { readJsonFile } from "#lib/checkpoint/file-reader";
import { openSafetensors } from "#lib/checkpoint/index";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import {
  type CaseResult,
  computeCase,
  type Difference,
  difference,
  gradientFloor,
  keptRows,
  norm,
  parseCase,
  type ReferenceCase,
} from "#lib/evaluation/verify/index";
import type { Model } from "#lib/models/index";
import { detailOnStandardError } from "#run/model-directory";
import { findModel } from "#run/model-place";
import { openModel } from "#run/open-model";
import { counted } from "#lib/core/format";
import { readCommandLine, usageOf } from "./command-line.js";

/** A case of 100 rows of 1000 tokens takes about 2 MB. */
const maxCaseBytes = 64 << 20;
const defaultTolerance = "1e-4";
/** Rows of the table without --all. */
const numShown = 8;

interface VerifyOptions {
  readonly model: string;
  /** Of an adapter, where it is not the one that it names. */
  readonly base?: string | undefined;
  readonly revision?: string | undefined;
  readonly caseDirectory: string | undefined;
  readonly tolerance: number;
  readonly showAll: boolean;
}

/** `lockstep verify-model`. Returns the exit code; errors of the catalogue are thrown. */
export async function verifyModelCommand(args: string[]): Promise<number> {
  const { passed, report } = await verifyModel(parse(args));
  process.stdout.write(report);
  return passed ? 0 : 1;
}

/** Computes a model's case and compares; the report is for a person. */
export async function verifyModel(
  options: VerifyOptions,
): Promise<{ readonly passed: boolean; readonly report: string }> {
  const place = await findModel(options.model, { ...options, onDetail: detailOnStandardError });
  const { directory } = place;
  const caseDirectory = expandHome(options.caseDirectory ?? directory);
  const caseFile = join(caseDirectory, "case.json");
  const reference = parseCase(caseFile, await readJsonFile(caseFile, "case", maxCaseBytes));
  const { model, readWeight, warnings, close } = await openModel(place);
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  let result: CaseResult;
  try {
    result = await computeCase(model, readWeight, reference);
  } finally {
    await close();
  }
  const differences = await compare(caseDirectory, model, reference, result);
  const numEqual = numEqualTokens(result.continuation, reference);
  const verdict = judge(differences, options.tolerance, numEqual, reference);
  const numGreedy = reference.greedy?.continuation.length;
  const lines = [
    describe(directory, model, reference),
    "",
    table(differences, options.showAll),
    ...(numGreedy === undefined
      ? []
      : [`  greedy continuation: ${numEqual} of ${counted(numGreedy, "token")} equal`]),
    "",
    verdict.text,
    "",
  ];
  return { passed: verdict.passed, report: lines.join("\n") };
}

function parse(args: string[]): VerifyOptions {
  const fail = usageOf("verify-model");
  const options = {
    rtol: { type: "string", default: defaultTolerance },
    case: { type: "string" },
    base: { type: "string" },
    all: { type: "boolean", default: false },
    revision: { type: "string" },
  } as const;
  const { values, positionals } = readCommandLine(args, options, fail);
  const [model, ...rest] = positionals;
  if (model === undefined || rest.length > 0) return fail("it takes one model directory");
  const tolerance = Number(values.rtol);
  if (!(tolerance >= 0)) return fail(`--rtol ${values.rtol} is not a number of at least 0`);
  const { base, case: caseDirectory, all: showAll, revision } = values;
  return { model, revision, base, caseDirectory, tolerance, showAll };
}

/** Every recorded tensor against the computed one, the worst first. */
async function compare(
  caseDirectory: string,
  model: Model,
  reference: ReferenceCase,
  result: CaseResult,
): Promise<Difference[]> {
  const file = join(caseDirectory, "expected.safetensors");
  const expected = await openSafetensors(file);
  try {
    const logits = await expected.readFloat32("logits");
    const isReal =
      model.task === "causal-lm"
        ? reference.attentionMask
        : new Int32Array(reference.numRows).fill(1);
    const differences = [
      difference("loss", [result.loss], [reference.loss]),
      difference("logits", keptRows(result.logits, isReal), keptRows(logits, isReal)),
    ];
    const names = [...expected.tensors.keys()].filter((name) => name.startsWith("grad."));
    const norms = new Map<string, number>();
    for (const name of names) norms.set(name, norm(await expected.readFloat32(name)));
    const floor = gradientFloor * Math.hypot(...norms.values());
    const missing = model.weights.find(({ name }) => !norms.has(`grad.${name}`));
    if (missing !== undefined) {
      const problem = `it has no gradient of ${missing.name}`;
      throw new LockstepError("E_CASE_INVALID", { file, problem });
    }
    for (const name of names) {
      const weight = name.slice("grad.".length);
      const actual = result.gradients.get(weight) ?? new Float32Array(0);
      differences.push(difference(name, actual, await expected.readFloat32(name), floor));
    }
    return differences.sort((a, b) => b.relative - a.relative);
  } finally {
    await expected.close();
  }
}

function numEqualTokens(continuation: Int32Array | undefined, { greedy }: ReferenceCase): number {
  if (greedy === undefined || continuation === undefined) return 0;
  const firstOther = greedy.continuation.findIndex((token, i) => token !== continuation[i]);
  return firstOther < 0 ? greedy.continuation.length : firstOther;
}

function describe(directory: string, model: Model, reference: ReferenceCase): string {
  const { numRows, rowLength } = reference;
  return `${directory}: ${model.modelType}, ${model.task}, ${counted(model.weights.length, "weight")}, ${counted(numRows, "row")} of ${counted(rowLength, "token")}, float32`;
}

function table(differences: readonly Difference[], showAll: boolean): string {
  const heads = differences.filter(({ name }) => !name.startsWith("grad."));
  const gradients = differences.filter(({ name }) => name.startsWith("grad."));
  const shown = [...heads, ...(showAll ? gradients : gradients.slice(0, numShown))];
  const width = Math.max(...shown.map(({ name }) => name.length));
  const lines = shown.map(
    ({ name, relative, scale }) =>
      `  ${name.padEnd(width)}  ${relative.toExponential(1).padStart(8)}  ${scale.toExponential(2).padStart(9)}`,
  );
  const numHidden = differences.length - shown.length;
  return [
    `  ${"tensor".padEnd(width)}  ${"relative".padStart(8)}  ${"of norm".padStart(9)}`,
    ...lines,
    ...(numHidden > 0 ? [`  and ${numHidden} gradients that differ less`] : []),
  ].join("\n");
}

function judge(
  differences: readonly Difference[],
  tolerance: number,
  numEqual: number,
  { greedy }: ReferenceCase,
): { readonly passed: boolean; readonly text: string } {
  const worst = differences[0] as Difference;
  const isOff = worst.relative > tolerance;
  const isOther = greedy !== undefined && numEqual < greedy.continuation.length;
  const limit = tolerance.toExponential(0);
  const largest = `${worst.name} differs by ${worst.relative.toExponential(1)}`;
  if (!isOff && !isOther) return { passed: true, text: `PASSED: at most ${limit} (${largest})` };
  const numOff = differences.filter(({ relative }) => relative > tolerance).length;
  const parts = [
    ...(isOff ? [`${numOff} of ${differences.length} beyond ${limit}, worst: ${largest}`] : []),
    ...(isOther ? [`the continuation differs from token ${numEqual + 1} on`] : []),
  ];
  return { passed: false, text: `FAILED: ${parts.join("; ")}` };
}
