import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import type { WorkerJob } from "#lib/core/job";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { assumeHalfKernels } from "#lib/graph/bf16-kernels";
import type { GraphDtype, GraphNode } from "#lib/graph/builder";
import type { Program } from "#lib/graph/session";
import { createModel } from "#lib/models/index";
import { tracedObjective } from "#lib/tuning/objectives/index";
import { buildTrainingPrograms, type TrainingPrograms } from "#lib/tuning/programs";
import { hasGpuKernel, kernelText } from "#tests/support/gpu-kernels";
import { modelFixtureDirectory, modelFixtures } from "#tests/support/model-fixtures";
import { causalJob, classifierJob } from "#tests/support/batches";

/** The programs of a job on a fixture's model, or undefined for one whose head no job trains. */
function programsOf(
  fixture: string,
  precision: Precision,
  more: Partial<WorkerJob> = {},
): TrainingPrograms | undefined {
  const modelConfig = JSON.parse(
    readFileSync(join(modelFixtureDirectory(fixture), "config.json"), "utf8"),
  ) as Record<string, unknown>;
  const model = createModel(modelConfig);
  if (model.task === "feature-extraction") return undefined;
  const fields = model.task === "causal-lm" ? causalJob() : classifierJob(model.numLabels);
  if (!tracedObjective(fields.objective.kind).fits(model)) return undefined;
  const job: WorkerJob = {
    jobId: "placement",
    modelConfig,
    layout: buildParameterLayout(model.weights, computeDtypes[precision]),
    precision,
    ...fields,
    ...{ sequenceLength: 12, microBatchSize: 2, evalBatchSize: 2 },
    ...{ generationLength: 8, threadsPerWorker: 1 },
    parameters: { kind: "full" },
    dropout: {
      seed: 1,
      rates: { embeddings: 0.1, attention: 0.1, residual: 0.1, classifier: 0.1 },
    },
    ...more,
  };
  return buildTrainingPrograms(model, job);
}

/** What a program runs: everything that its fetches need. */
function nodesOf(program: Program): ReadonlySet<GraphNode> {
  const found = new Set<GraphNode>();
  const pending = Object.values(program.fetches).map(({ node }) => node);
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (found.has(node)) continue;
    found.add(node);
    for (const input of node.inputs) pending.push(input.node);
    pending.push(...node.controlInputs);
    const called = node.attrs["f"];
    if (called?.kind === "function") {
      const body = node.graph.functions.find(({ name }) => name === called.value);
      pending.push(...(body?.results ?? []).map((result) => result.node));
    }
  }
  return found;
}

test("the list of GPU kernels tells types apart", () => {
  const node = (op: string, T: GraphDtype) =>
    ({ op, attrs: { T: { kind: "type", value: T } } }) as const;
  assert.equal(hasGpuKernel(node("MatMul", "bfloat16")), true);
  assert.equal(hasGpuKernel(node("MatMul", "int64")), false);
  assert.equal(hasGpuKernel(node("StringJoin", "bfloat16")), false);
});

for (const precision of ["bf16", "fp16", "fp32"] as const) {
  test(`every node of the ${precision} training graphs has a kernel for GPUs`, () => {
    const missing = new Map<string, string>();
    let numModels = 0;
    for (const fixture of modelFixtures) {
      const programs = programsOf(fixture, precision);
      if (programs === undefined) continue;
      numModels += 1;
      for (const node of programs.graph.nodes) {
        if (!hasGpuKernel(node)) missing.set(kernelText(node), `${fixture}: ${node.name}`);
      }
    }
    assert.ok(numModels > 15);
    assert.deepEqual([...missing], []);
  });
}

test("the step of every model fits into one function for XLA, which takes and gives all there is", () => {
  let numModels = 0;
  for (const fixture of modelFixtures) {
    const programs = programsOf(fixture, "bf16", { xla: true });
    if (programs === undefined) continue;
    numModels += 1;
    const outside = [...nodesOf(programs.gradients.middle)].filter(
      (node) => node.graph === programs.graph,
    );
    const calls = outside.filter(({ op }) => op === "PartitionedCall");
    assert.deepEqual(
      calls.map(({ outputs }) => outputs.length),
      [programs.views.length + 1],
      fixture,
    );
    assert.ok(!outside.some(({ op }) => /MatMul|Softmax/.test(op)), fixture);
  }
  assert.ok(numModels > 15);
});

/**
 * Ops whose bfloat16 form would cost digits: sums, exponentials and what norms are made of. Not Softmax:
 * it is bfloat16 only where the kernel is float32 inside.
 */
const float32Ops = new Set([
  ...["Sum", "Mean", "Max", "Exp", "Log", "Log1p", "Rsqrt", "Sqrt", "LogSoftmax"],
  ...["SquaredDifference", "Square"],
]);

for (const precision of ["bf16", "fp16"] as const) {
  test(`in a ${precision} job matrix products are of its type, and norms and losses float32`, (t) => {
    // As on a GPU, whatever this processor has.
    assumeHalfKernels(true);
    t.after(() => assumeHalfKernels(undefined));
    let numProducts = 0;
    let numFloat32 = 0;
    for (const fixture of ["gpt2", "llama-gqa-untied", "qwen3", "gemma2", "phi3"]) {
      const programs = programsOf(fixture, precision);
      assert.ok(programs !== undefined);
      for (const node of nodesOf(programs.gradients.middle)) {
        const T = node.attrs["T"]?.kind === "type" ? node.attrs["T"].value : undefined;
        if (/^(MatMul|BatchMatMulV2)$/.test(node.op)) {
          numProducts += 1;
          assert.equal(T, computeDtypes[precision], `${fixture}: ${node.name}`);
        }
        if (float32Ops.has(node.op) && T !== "int32") {
          numFloat32 += 1;
          assert.equal(T, "float32", `${fixture}: ${node.name}`);
        }
      }
      for (const node of programs.graph.nodes) {
        if (node.op !== "VarHandleOp" || !node.name.startsWith("gradient/")) continue;
        assert.deepEqual(node.attrs["dtype"], { kind: "type", value: "float32" }, node.name);
      }
    }
    assert.ok(numProducts > 50 && numFloat32 > 50, `${numProducts} products, ${numFloat32} others`);
  });
}
