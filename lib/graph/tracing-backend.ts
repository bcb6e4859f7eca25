// The union package registers the gradients of all ops with the engine that tfjs-core shares.
import "@tensorflow/tfjs";
import * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type { Autocast } from "./autocast.js";
import { type GraphBuilder, type GraphDtype, type GraphTensor } from "./builder.js";
import type { Recomputation } from "./recomputation.js";
import { cast, constant, fill, scalar } from "./tf-ops.js";

/** tfjs finds kernels by what stands before an underscore, so the name has none. */
const graphBackendName = "graph";

/** What a lowering works with: the graph that it appends to, and the precision policy. */
export interface Tracer {
  readonly graph: GraphBuilder;
  readonly autocast: Autocast;
  /** Absent: backward uses the activations of forward. */
  readonly recomputation?: Recomputation;
  /**
   * Products may keep a packed copy of a weight: for graphs whose weights never change after the first
   * run of a program, where `canPackProducts()`. @default false
   */
  readonly packsWeights?: boolean;
}

export type Lowering = (
  tracer: Tracer,
  inputs: Readonly<Record<string, GraphTensor>>,
  attrs: Readonly<Record<string, unknown>>,
) => GraphTensor | readonly GraphTensor[];

/** tfjs' view of a graph type. */
function tfjsDtype(dtype: GraphDtype): "float32" | "int32" | "bool" {
  switch (dtype) {
    case "int32":
    case "int64":
    case "uint8":
    case "uint16":
    case "uint64":
      return "int32";
    case "bool":
      return "bool";
    default:
      return "float32";
  }
}

interface Pending {
  readonly values: Float32Array | Int32Array | Uint8Array;
  readonly shape: readonly number[];
  readonly dtype: "float32" | "int32" | "bool";
}

/**
 * The tfjs backend that computes nothing: kernels append nodes, a tensor's data is a graph tensor.
 * tfjs' gradient tape differentiates by calling the same kernels, so backward is traced alike.
 */
class TracingBackend extends tf.KernelBackend {
  readonly #symbols = new WeakMap<object, GraphTensor | Pending>();
  #tracer: Tracer | undefined;

  get tracer(): Tracer {
    if (this.#tracer === undefined) {
      throw new LockstepError("E_VALUE_READ_WHILE_TRACING", { what: "An op outside of trace()" });
    }
    return this.#tracer;
  }

  /** Runs `body` with kernels appending to the given graph. */
  within<R>(tracer: Tracer, body: () => R): R {
    const outer = this.#tracer;
    this.#tracer = tracer;
    const { graph, recomputation } = tracer;
    try {
      if (recomputation === undefined) return body();
      return graph.substituting((known) => recomputation.current(known), body);
    } finally {
      this.#tracer = outer;
    }
  }

  dataIdOf(symbol: GraphTensor): object {
    const dataId = {};
    this.#symbols.set(dataId, symbol);
    return dataId;
  }

  symbolOf(dataId: object): GraphTensor {
    const found = this.#symbols.get(dataId);
    if (found === undefined) {
      throw new LockstepError("E_VALUE_READ_WHILE_TRACING", {
        what: "An op on a tensor of another backend",
      });
    }
    if ("node" in found) {
      const { graph, recomputation } = this.tracer;
      if (found.node.graph === graph) return recomputation?.currentTensor(found) ?? found;
      throw new LockstepError("E_VALUE_READ_WHILE_TRACING", {
        what: "An op on a tensor of another graph",
      });
    }
    const symbol = constantOf(this.tracer.graph, found);
    this.#symbols.set(dataId, symbol);
    return symbol;
  }

  override write(values: tf.BackendValues, shape: number[], dtype: tf.DataType): tf.DataId {
    if (dtype !== "float32" && dtype !== "int32" && dtype !== "bool") {
      throw new LockstepError("E_GRAPH_DTYPE", {
        op: "A constant",
        expected: "float32, int32 or bool",
        got: dtype,
      });
    }
    const typed =
      dtype === "float32"
        ? Float32Array.from(values as ArrayLike<number>)
        : dtype === "int32"
          ? Int32Array.from(values as ArrayLike<number>)
          : Uint8Array.from(values as ArrayLike<number>);
    const dataId = {};
    this.#symbols.set(dataId, { values: typed, shape: [...shape], dtype });
    return dataId;
  }

  override move(): void {
    throw new LockstepError("E_VALUE_READ_WHILE_TRACING", {
      what: "Moving a tensor between backends",
    });
  }

  override readSync(): tf.BackendValues {
    throw new LockstepError("E_VALUE_READ_WHILE_TRACING", { what: "dataSync()" });
  }

  override async read(): Promise<tf.BackendValues> {
    throw new LockstepError("E_VALUE_READ_WHILE_TRACING", { what: "data()" });
  }

  override disposeData(): boolean {
    return true;
  }

  override incRef(): void {}
  override refCount(): number {
    return 1;
  }
  override numDataIds(): number {
    return 0;
  }
  override memory(): { unreliable: boolean } {
    return { unreliable: true };
  }
  override floatPrecision(): 16 | 32 {
    return 32;
  }
  override epsilon(): number {
    return 1e-7;
  }
  override dispose(): void {}
}

/** Arrays of one value, such as tf.ones(), become a scalar and a Fill. */
function constantOf(graph: GraphBuilder, pending: Pending): GraphTensor {
  const { values, shape, dtype } = pending;
  const first = values[0];
  if (values.length > 1 && values.every((value) => Object.is(value, first))) {
    return fill(constant(graph, values.slice(0, 1), dtype, []), shape);
  }
  return constant(graph, values, dtype, shape);
}

const backend = new TracingBackend();
tf.registerBackend(graphBackendName, () => backend);

/** Registers how a tfjs kernel becomes TensorFlow nodes. */
export function registerLowering(kernelName: string, lowering: Lowering): void {
  tf.registerKernel({
    kernelName,
    backendName: graphBackendName,
    kernelFunc: ({ inputs, attrs }) => {
      const symbols: Record<string, GraphTensor> = {};
      const list = inputs as unknown;
      // Ops on a list of tensors (AddN, Concat, Pack) come as an array; keys are the indices.
      for (const [name, info] of Object.entries(list as Record<string, tf.TensorInfo | null>)) {
        if (info !== null && info !== undefined) symbols[name] = backend.symbolOf(info.dataId);
      }
      const result = lowering(backend.tracer, symbols, (attrs ?? {}) as Record<string, unknown>);
      return Array.isArray(result) ? result.map(tensorInfoOf) : tensorInfoOf(result as GraphTensor);
    },
  });
}

function tensorInfoOf(symbol: GraphTensor): tf.TensorInfo {
  return {
    dataId: backend.dataIdOf(symbol),
    shape: [...symbol.shape],
    dtype: tfjsDtype(symbol.dtype),
  };
}

/** Makes every kernel of tfjs that has no lowering fail with its name, at trace time. */
export function refuseUnloweredKernels(): void {
  const lowered = new Set(tf.getKernelsForBackend(graphBackendName).map((k) => k.kernelName));
  for (const [exported, value] of Object.entries(tf)) {
    if (typeof value !== "string" || (exported !== value && !kernelAliases.has(exported))) continue;
    if (lowered.has(value)) continue;
    tf.registerKernel({
      kernelName: value,
      backendName: graphBackendName,
      kernelFunc: () => {
        throw new LockstepError("E_OP_NOT_LOWERED", { op: value });
      },
    });
  }
}

/** Kernels whose exported constant is not called like the kernel. */
const kernelAliases = new Set(["FusedConv2D", "FusedDepthwiseConv2D", "_FusedMatMul"]);

/** A tfjs tensor that stands for a graph tensor. */
export function symbolicTensor<R extends tf.Rank = tf.Rank>(symbol: GraphTensor): tf.Tensor<R> {
  const info = tensorInfoOf(symbol);
  return tf
    .engine()
    .makeTensorFromDataId(info.dataId, info.shape, info.dtype, backend) as tf.Tensor<R>;
}

/** The graph tensor that a traced tfjs tensor stands for. */
export function graphTensor(tensor: tf.Tensor): GraphTensor {
  return backend.symbolOf(tensor.dataId);
}

/**
 * Runs tfjs code with the tracing backend; its ops append to `tracer.graph`.
 *
 * @returns what `body` returns; tensors in it are traced, read them with `graphTensor` inside `body`
 */
export function trace<R>(tracer: Tracer, body: () => R): R {
  const outer = tf.engine().backendName;
  // Both backends are there already, so the switch is done when the call returns.
  void tf.setBackend(graphBackendName);
  tf.engine().startScope();
  try {
    return backend.within(tracer, body);
  } finally {
    tf.engine().endScope();
    if (typeof outer === "string" && outer !== graphBackendName) void tf.setBackend(outer);
  }
}

/** A float32 scalar constant in the type of another tensor. */
export const scalarLike = (x: GraphTensor, value: number): GraphTensor =>
  cast(scalar(x.node.graph, value), x.dtype);
