import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ModelWeights } from "#lib/checkpoint/index";
import type { WireDtype } from "#lib/core/dtype";
import {
  buildParameterLayout,
  type ParameterLayout,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { openModel } from "#run/open-model";
import { packageRoot } from "#lib/core/paths";
import { parseCase, type ReferenceCase } from "#lib/evaluation/verify/index";
import type { CausalLanguageModel } from "#lib/models/index";
import { writeSlot } from "./tiny-llama.js";

const root = join(packageRoot, "tests/fixtures/models");

/** Tiny random models of many architectures with their cases: tests/reference/make_random_model.py. */
export const modelFixtures: readonly string[] = readdirSync(root).sort();

export const modelFixtureDirectory = (name: string): string => join(root, name);

export function readFixtureCase(name: string): ReferenceCase {
  const file = join(root, name, "case.json");
  return parseCase(file, JSON.parse(readFileSync(file, "utf8")) as unknown);
}

/** A causal model of the fixtures with its weights. */
export async function openCausalFixture(name: string): Promise<{
  readonly model: CausalLanguageModel;
  readonly readWeight: (name: string) => Promise<Float32Array>;
  readonly close: () => Promise<void>;
}> {
  const opened = await openModel(modelFixtureDirectory(name));
  if (opened.model.task !== "causal-lm") throw new Error(`${name} is not a causal model`);
  return { ...opened, model: opened.model };
}

/** All weights of a fixture as a trained space, in wire form, and its config.json. */
export async function readFixtureSpace(
  name: string,
  wireDtype: WireDtype = "float32",
): Promise<{
  readonly modelConfig: Record<string, unknown>;
  readonly layout: ParameterLayout;
  readonly wireBytes: Uint8Array<SharedArrayBuffer>;
}> {
  const directory = modelFixtureDirectory(name);
  const weights = await ModelWeights.open(directory);
  const layout = buildParameterLayout(
    weights.names().map((tensor) => ({ name: tensor, shape: weights.info(tensor).shape })),
    wireDtype,
  );
  const wireBytes = new Uint8Array(new SharedArrayBuffer(wireSizeBytes(layout)));
  for (const { name: tensor } of layout.tensors) {
    writeSlot(layout, tensor, await weights.readFloat32(tensor), wireBytes);
  }
  await weights.close();
  const config = readFileSync(join(directory, "config.json"), "utf8");
  return { modelConfig: JSON.parse(config) as Record<string, unknown>, layout, wireBytes };
}
