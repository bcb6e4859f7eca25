import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { openModel } from "#run/open-model";
import { packageRoot } from "#lib/core/paths";
import { parseCase, type ReferenceCase } from "#lib/evaluation/verify/index";
import type { CausalLanguageModel } from "#lib/models/index";

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
