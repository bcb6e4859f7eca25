import { promote, toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";

const x = (inputs: Readonly<Record<string, GraphTensor>>): GraphTensor =>
  inputs["x"] as GraphTensor;

registerLowering("Reshape", (_, inputs, attrs) =>
  op.reshape(x(inputs), staticShape(x(inputs), attrs["shape"] as number[])),
);

/** Fills in the one dimension that may be -1. */
function staticShape(tensor: GraphTensor, shape: readonly number[]): readonly number[] {
  const known = shape.reduce((product, dim) => (dim === -1 ? product : product * dim), 1);
  return shape.map((dim) => (dim === -1 ? op.numElements(tensor.shape) / known : dim));
}

registerLowering("ExpandDims", (_, inputs, attrs) => {
  const input = inputs["input"] as GraphTensor;
  const dim = attrs["dim"] as number;
  const axis = dim < 0 ? dim + input.shape.length + 1 : dim;
  return op.reshape(input, [...input.shape.slice(0, axis), 1, ...input.shape.slice(axis)]);
});

registerLowering("Transpose", (_, inputs, attrs) =>
  op.transpose(x(inputs), attrs["perm"] as number[]),
);

registerLowering("Slice", (_, inputs, attrs) => {
  const begin = attrs["begin"] as number[];
  const size = (attrs["size"] as number[]).map((dim, axis) =>
    dim === -1 ? (x(inputs).shape[axis] as number) - (begin[axis] as number) : dim,
  );
  return op.slice(x(inputs), begin, size);
});

registerLowering("Concat", (_, inputs, attrs) => {
  const parts = promote("Concat", Object.values(inputs));
  const axis = attrs["axis"] as number;
  return op.concat(parts, axis < 0 ? axis + (parts[0] as GraphTensor).shape.length : axis);
});

registerLowering("Pack", (_, inputs, attrs) => {
  const parts = promote("Pack", Object.values(inputs));
  const axis = attrs["axis"] as number;
  return op.concat(
    parts.map((part) =>
      op.reshape(part, [...part.shape.slice(0, axis), 1, ...part.shape.slice(axis)]),
    ),
    axis,
  );
});

registerLowering("Unpack", (_, inputs, attrs) => {
  const value = inputs["value"] as GraphTensor;
  const axis = attrs["axis"] as number;
  const count = value.shape[axis] as number;
  return op.split(value, count, axis).map((part) =>
    op.reshape(
      part,
      value.shape.filter((_, index) => index !== axis),
    ),
  );
});

registerLowering("SplitV", (_, inputs, attrs) => {
  const axis = attrs["axis"] as number;
  const sizes = attrs["numOrSizeSplits"] as number[] | number;
  const input = x(inputs);
  const dim = input.shape[axis] as number;
  const list = typeof sizes === "number" ? Array.from({ length: sizes }, () => dim / sizes) : sizes;
  let start = 0;
  return list.map((size) => {
    const begin = input.shape.map((_, index) => (index === axis ? start : 0));
    start += size;
    return op.slice(
      input,
      begin,
      input.shape.map((full, index) => (index === axis ? size : full)),
    );
  });
});

registerLowering("Tile", (_, inputs, attrs) => op.tile(x(inputs), attrs["reps"] as number[]));

registerLowering("BroadcastTo", (_, inputs, attrs) =>
  op.broadcastTo(x(inputs), attrs["shape"] as number[]),
);

registerLowering("PadV2", (_, inputs, attrs) =>
  op.pad(x(inputs), attrs["paddings"] as [number, number][], attrs["constantValue"] as number),
);

registerLowering("OneHot", (tracer, inputs, attrs) =>
  op.oneHot(
    inputs["indices"] as GraphTensor,
    attrs["depth"] as number,
    op.scalar(tracer.graph, attrs["onValue"] as number),
    op.scalar(tracer.graph, attrs["offValue"] as number),
  ),
);

registerLowering("GatherV2", ({ autocast }, inputs, attrs) => {
  const params = inputs["x"] as GraphTensor;
  const axis = attrs["axis"] as number;
  const rows = op.gather(
    params,
    op.cast(inputs["indices"] as GraphTensor, "int32"),
    axis < 0 ? axis + params.shape.length : axis,
  );
  // What is added to embeddings layer by layer outgrows a half's range, or falls below its steps: as under
  // torch's autocast they are float32, and so is what blocks add to.
  return autocast.compute === "float16" ? toFloat32(rows) : rows;
});

registerLowering("UnsortedSegmentSum", (_, inputs, attrs) =>
  op.unsortedSegmentSum(
    toFloat32(x(inputs)),
    inputs["segmentIds"] as GraphTensor,
    attrs["numSegments"] as number,
  ),
);
