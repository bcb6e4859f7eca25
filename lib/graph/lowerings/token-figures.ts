// Shape legend: C rows of a chunk, D model width, P vocabulary with padding, L lanes of Q columns.
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { paddedRows } from "#lib/graph/padded-rows";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaFunction } from "#lib/graph/xla-function";
import { LinearTokenFigures } from "#lib/ops/index";
import {
  cappedLogits,
  type Chunk,
  chunksOf,
  masked,
  numLanes,
  vocabularyRow,
} from "./linear-cross-entropy.js";

// Of the logits that the loss is of: the graph makes their product once.
registerLowering(LinearTokenFigures, (tracer, inputs, attrs) =>
  op.concat(chunksOf(tracer, inputs, attrs).map(tokenFigures), 0),
);

/** The mean logit of each row of a chunk, the entropy, and whether the target is the first of the largest, [rows, 3]. */
function tokenFigures({ hidden_CD, weight_PD, targets_C, vocab, softcap }: Chunk): GraphTensor {
  const graph = weight_PD.node.graph;
  const product_CP = op.matMul(hidden_CD, weight_PD, false, true);
  const [numRows, numColumns] = product_CP.shape as [number, number];
  const lanes = [numRows, paddedRows(numColumns) / numLanes, numLanes] as const;
  const [isTop_C, ...parts_CL] = xlaFunction(
    graph,
    LinearTokenFigures,
    [product_CP, targets_C],
    (args) => {
      const [logits, targets] = args as [GraphTensor, GraphTensor];
      const body = logits.node.graph;
      const padding = [
        [0, 0],
        [0, paddedRows(numColumns) - numColumns],
      ] as const;
      const wide = op.pad(cappedLogits(logits, softcap).capped, padding, 0);
      const size = wide.shape[1] as number;
      const inLanes = (values: GraphTensor): GraphTensor => op.reshape(values, lanes);
      const max = (values_CQL: GraphTensor): GraphTensor =>
        op.reduce("Max", op.reduce("Max", values_CQL, [1], false), [1], false);
      const sums = (values_CQL: GraphTensor): GraphTensor =>
        op.reduce("Sum", values_CQL, [1], false);
      const logits_CQL = inLanes(masked(wide, vocab));
      const max_C = max(logits_CQL);
      const places = Int32Array.from({ length: size }, (_, column) => column);
      const places_1QL = op.constant(body, places, "int32", [1, lanes[1], numLanes]);
      const targets_C11 = op.reshape(targets, [numRows, 1, 1]);
      const none = op.scalar(body, Number.NEGATIVE_INFINITY);
      const only = (isKept: GraphTensor): GraphTensor => op.select(isKept, logits_CQL, none);
      const target_C = max(only(op.equal(places_1QL, targets_C11)));
      const before_C = max(only(op.less(places_1QL, targets_C11)));
      const isLargest_C = op.cast(op.greaterEqual(target_C, max_C), "float32");
      const isFirst_C = op.cast(op.greater(target_C, before_C), "float32");
      const kept_CQL = inLanes(op.mul(wide, vocabularyRow(wide, 1, vocab, size)));
      const shifted_CQL = op.sub(kept_CQL, op.reshape(max_C, [numRows, 1, 1]));
      const exp_CQL = op.unary("Exp", op.sub(logits_CQL, op.reshape(max_C, [numRows, 1, 1])));
      return [
        op.mul(isLargest_C, isFirst_C),
        ...[kept_CQL, exp_CQL, op.mul(exp_CQL, shifted_CQL)].map(sums),
      ];
    },
  ) as [GraphTensor, ...GraphTensor[]];
  // Outside of the function: XLA would make one sum of the two.
  const [logitSum_C, expSum_C, shiftedSum_C] = parts_CL.map((parts) =>
    op.reduce("Sum", parts, [1], false),
  ) as [GraphTensor, GraphTensor, GraphTensor];
  const mean_C = op.div(logitSum_C, op.scalar(graph, vocab));
  const entropy_C = op.sub(op.unary("Log", expSum_C), op.div(shiftedSum_C, expSum_C));
  const columns = [mean_C, entropy_C, isTop_C].map((column) => op.reshape(column, [numRows, 1]));
  return op.concat(columns, 1);
}
