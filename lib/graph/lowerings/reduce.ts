import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";

/** tfjs gives one axis, several, or none for all of them. */
function axesOf(tensor: GraphTensor, axis: unknown): number[] {
  if (axis === undefined || axis === null) return tensor.shape.map((_, index) => index);
  const axes = Array.isArray(axis) ? (axis as number[]) : [axis as number];
  return axes.map((value) => (value < 0 ? value + tensor.shape.length : value));
}

for (const kernel of ["Sum", "Mean", "Max", "Min", "Prod"] as const) {
  registerLowering(kernel, (_, inputs, attrs) => {
    const tensor = inputs["x"] as GraphTensor;
    // A bfloat16 sum of a thousand terms keeps two digits; integers stay what they are.
    const operand = tensor.dtype === "bool" ? op.cast(tensor, "int32") : toFloat32(tensor);
    // Max calls its axes by another name than the rest.
    const axes = axesOf(tensor, attrs["axis"] ?? attrs["reductionIndices"]);
    return op.reduce(kernel, operand, axes, attrs["keepDims"] === true);
  });
}

registerLowering("Cumsum", (_, inputs, attrs) => {
  const tensor = inputs["x"] as GraphTensor;
  const operand = tensor.dtype === "int32" ? tensor : toFloat32(tensor);
  const [axis] = axesOf(tensor, attrs["axis"]) as [number];
  return op.cumsum(operand, axis, attrs["exclusive"] === true, attrs["reverse"] === true);
});

registerLowering("ArgMax", (_, inputs, attrs) => {
  const tensor = inputs["x"] as GraphTensor;
  return op.argMax(tensor, axesOf(tensor, attrs["axis"])[0] as number);
});

registerLowering("Softmax", (_, inputs) => op.softmax(toFloat32(inputs["logits"] as GraphTensor)));
registerLowering("LogSoftmax", (_, inputs) =>
  op.logSoftmax(toFloat32(inputs["logits"] as GraphTensor)),
);
