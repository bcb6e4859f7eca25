import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { loadBinding, type TensorFlowBinding } from "./binding.js";
import type { GraphBuilder, GraphTensor } from "./builder.js";
import { encodeSavedModel, servingTag } from "./saved-model.js";
import { numElements } from "./tf-ops.js";

export type TensorData = Float32Array | Int32Array | Uint8Array;

/** One way to run a graph: what goes in, what comes out. Programs of a graph share its variables. */
export interface Program {
  readonly name: string;
  readonly feeds: Readonly<Record<string, GraphTensor>>;
  readonly fetches: Readonly<Record<string, GraphTensor>>;
}

const feedDtypes: Readonly<Record<string, number>> = { float32: 1, int32: 3, bool: 10 };

function typedArrayName(dtype: string): string {
  if (dtype === "float32") return "Float32Array";
  return dtype === "int32" ? "Int32Array" : "Uint8Array";
}

function arrayOf(tensor: GraphTensor): string {
  return `${typedArrayName(tensor.dtype)} of ${numElements(tensor.shape)}`;
}

function fits(tensor: GraphTensor, values: TensorData): boolean {
  return (
    values.constructor.name === typedArrayName(tensor.dtype) &&
    values.length === numElements(tensor.shape)
  );
}

/** A TensorFlow session over one graph; variables live in it. Belongs to the thread that made it. */
export class Session {
  readonly #binding: TensorFlowBinding;
  readonly #modelId: number;
  #closed = false;

  constructor(graph: GraphBuilder) {
    this.#binding = loadBinding();
    const directory = mkdtempSync(join(tmpdir(), "lockstep-graph-"));
    try {
      writeFileSync(join(directory, "saved_model.pb"), encodeSavedModel(graph));
      this.#modelId = this.#binding.loadSavedModel(directory, servingTag);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  /**
   * Runs a program.
   *
   * @param data one array a feed, of the feed's type and static size; read during the call only
   * @param into arrays, of the fetch's type and static size, that take fetches of these names; they may
   *   lie in shared memory. Without one a fetch comes in a fresh array.
   * @returns one array a fetch
   * @throws E_SESSION_FEED or E_SESSION_FETCH before anything runs, E_SESSION_FAILED with TensorFlow's
   *   message
   */
  run(
    program: Program,
    data: Readonly<Record<string, TensorData>>,
    into: Readonly<Record<string, TensorData>> = {},
  ): Record<string, TensorData> {
    for (const [fetch, values] of Object.entries(into)) {
      const tensor = program.fetches[fetch];
      if (tensor === undefined || !fits(tensor, values)) {
        throw new LockstepError("E_SESSION_FETCH", {
          program: program.name,
          fetch,
          expected: tensor === undefined ? "no array, for it is no fetch" : arrayOf(tensor),
          got: `${values.constructor.name} of ${values.length}`,
        });
      }
    }
    const ids: number[] = [];
    try {
      const inputNames: string[] = [];
      for (const [feed, tensor] of Object.entries(program.feeds)) {
        const values = data[feed];
        if (values === undefined || !fits(tensor, values)) {
          throw new LockstepError("E_SESSION_FEED", {
            program: program.name,
            feed,
            expected: arrayOf(tensor),
            got:
              values === undefined ? "nothing" : `${values.constructor.name} of ${values.length}`,
          });
        }
        ids.push(
          this.#binding.createTensor(tensor.shape, feedDtypes[tensor.dtype] as number, values),
        );
        inputNames.push(`${tensor.node.name}:0`);
      }
      const fetchEntries = Object.entries(program.fetches);
      const outputs = this.#runRaw(
        program.name,
        ids,
        inputNames.join(","),
        fetchEntries.map(([, tensor]) => `${tensor.node.name}:${tensor.index}`).join(","),
      );
      for (const output of outputs) ids.push(output.id);
      return Object.fromEntries(
        fetchEntries.map(([name], index) => {
          const { id } = outputs[index] as { id: number };
          const target = into[name];
          if (target === undefined) return [name, this.#binding.tensorDataSync(id)];
          this.#binding.readTensor(id, target);
          return [name, target];
        }),
      );
    } finally {
      for (const id of ids) this.#binding.deleteTensor(id);
    }
  }

  #runRaw(name: string, ids: readonly number[], inputs: string, outputs: string) {
    try {
      return this.#binding.runSavedModel(this.#modelId, ids, inputs, outputs);
    } catch (error) {
      throw new LockstepError(
        "E_SESSION_FAILED",
        { program: name, message: error instanceof Error ? error.message : String(error) },
        { cause: error },
      );
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#binding.deleteSavedModel(this.#modelId);
  }
}
