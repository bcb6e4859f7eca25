import { readFileSync } from "node:fs";
import { join } from "node:path";
import protobuf from "protobufjs";
import { packageRoot } from "#lib/core/paths";
import type {
  GraphAttr,
  GraphBuilder,
  GraphDtype,
  GraphFunction,
  GraphNode,
  GraphTensor,
} from "./builder.js";
import { argumentOp, bodyRef } from "./xla-function.js";

const { root } = protobuf.parse(
  readFileSync(join(packageRoot, "proto/tensorflow/saved_model.proto"), "utf8"),
  { keepCase: true },
);
const savedModelType = root.lookupType("tensorflow.SavedModel");

/** TensorFlow's numbers for element types. */
const dataTypes: Readonly<Record<GraphDtype, number>> = {
  float32: 1,
  float64: 2,
  int32: 3,
  uint8: 4,
  int64: 9,
  bool: 10,
  bfloat16: 14,
  uint16: 17,
  float16: 19,
  resource: 20,
  uint64: 23,
};

/** The graph version of TensorFlow 2.21 that the ops are written for. */
const graphDefVersion = 2_000;
export const servingTag = "serve";

/** Encodes a graph as a SavedModel without signatures: feeds and fetches go by node name. */
export function encodeSavedModel(graph: GraphBuilder): Uint8Array {
  return savedModelType
    .encode({
      saved_model_schema_version: 1,
      meta_graphs: [
        {
          meta_info_def: { tags: [servingTag], tensorflow_version: "2.21.0" },
          graph_def: {
            node: graph.nodes.map((node) => nodeDef(node, graphRef)),
            library: { function: graph.functions.map(functionDef) },
            versions: { producer: graphDefVersion, min_consumer: 12 },
          },
        },
      ],
    })
    .finish();
}

const graphRef = ({ node, index }: GraphTensor): string =>
  index === 0 ? node.name : `${node.name}:${index}`;

function functionDef({ name, body, args, results }: GraphFunction): object {
  const argDef = (prefix: string) => (tensor: GraphTensor, index: number) => ({
    name: `${prefix}${index}`,
    type: dataTypes[tensor.dtype],
  });
  return {
    signature: {
      name,
      input_arg: args.map(argDef("arg")),
      output_arg: results.map(argDef("result")),
    },
    node_def: body.nodes
      .filter((node) => node.op !== argumentOp)
      .map((node) => nodeDef(node, bodyRef)),
    ret: Object.fromEntries(results.map((result, index) => [`result${index}`, bodyRef(result)])),
    attr: { _XlaMustCompile: { b: true } },
  };
}

function nodeDef(node: GraphNode, refOf: (tensor: GraphTensor) => string): object {
  return {
    name: node.name,
    op: node.op,
    input: [
      ...node.inputs.map(refOf),
      ...[...node.controlInputs].map((control) => `^${control.name}`),
    ],
    attr: Object.fromEntries(
      Object.entries(node.attrs).map(([name, attr]) => [name, attrValue(attr)]),
    ),
  };
}

const shapeProto = (shape: readonly number[]): object => ({
  dim: shape.map((size) => ({ size })),
});

function attrValue(attr: GraphAttr): object {
  switch (attr.kind) {
    case "type":
      return { type: dataTypes[attr.value] };
    case "int":
      return { i: attr.value };
    case "float":
      return { f: attr.value };
    case "bool":
      return { b: attr.value };
    case "string":
      return { s: Buffer.from(attr.value, "utf8") };
    case "shape":
      return { shape: shapeProto(attr.value) };
    case "ints":
      return { list: { i: attr.value } };
    case "types":
      return { list: { type: attr.value.map((dtype) => dataTypes[dtype]) } };
    case "strings":
      return { list: { s: attr.value.map((value) => Buffer.from(value, "utf8")) } };
    case "function":
      return { func: { name: attr.value } };
    case "tensor":
      return {
        tensor: {
          dtype: dataTypes[attr.dtype],
          tensor_shape: shapeProto(attr.shape),
          tensor_content: attr.bytes,
        },
      };
  }
}
