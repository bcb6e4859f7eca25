import type { ParseArgsConfig } from "node:util";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { detailOnStandardError } from "#run/model-directory";
import { findModel, type ModelPlace } from "#run/model-place";
import { readCommandLine } from "./command-line.js";
import { tellSlowBf16 } from "./slow-bf16.js";

/** Options of every command that computes with a model's texts. */
const modelOptions = {
  base: { type: "string" },
  revision: { type: "string" },
  bf16: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
} as const;

/** What such a command is asked: its model, and how it computes and answers. */
export interface ModelRequest {
  readonly model: string;
  readonly base: string | undefined;
  readonly revision: string | undefined;
  readonly bf16: boolean;
  readonly json: boolean;
}

/**
 * Reads the arguments of a command that takes one model, those of every such command and its own.
 *
 * @param fail throws E_USAGE with a problem
 * @throws E_USAGE
 */
export function parseModelArguments<const Own extends NonNullable<ParseArgsConfig["options"]>>(
  args: string[],
  own: Own,
  fail: (problem: string) => never,
) {
  const { positionals, values } = readCommandLine(args, { ...own, ...modelOptions }, fail);
  const [model, ...rest] = positionals;
  if (model === undefined || rest.length > 0) return fail("it takes one model directory");
  const { base, revision, bf16, json } = values as Omit<ModelRequest, "model">;
  const request: ModelRequest = { model, base, revision, bf16, json };
  return { request, values };
}

/** Finds the model that is asked for, and loads its tokenizer. */
export async function findTextModel(
  request: ModelRequest,
): Promise<{ readonly place: ModelPlace; readonly tokenizer: Tokenizer }> {
  const place = await findModel(request.model, { ...request, onDetail: detailOnStandardError });
  if (request.bf16) tellSlowBf16();
  const tokenizer = await loadTokenizer(place.tokenizerDirectory, place.modelDirectory);
  return { place, tokenizer };
}
