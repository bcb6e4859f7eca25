import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";
import type { GraphNode } from "#lib/graph/builder";

/** TensorFlow's kernels for GPUs by op, as tests/reference/make_gpu_kernels_fixture.py lists them. */
const { kernels } = JSON.parse(
  readFileSync(join(packageRoot, "tests/fixtures/gpu_kernels.json"), "utf8"),
) as { readonly kernels: Readonly<Record<string, readonly string[]>> };

/** "T=bfloat16|float32 Tidx=int32" holds for a node when all its parts do. */
function takes(constraints: string, node: GraphNode): boolean {
  if (constraints === "") return true;
  return constraints.split(" ").every((part) => {
    const [name = "", types = ""] = part.split("=");
    const attr = node.attrs[name];
    // An attribute that a node leaves out has its default, which is int32 for all index types.
    const dtype = attr?.kind === "type" ? attr.value : "int32";
    return types.split("|").includes(dtype);
  });
}

/** Whether TensorFlow has a kernel that runs this node on a GPU. */
export const hasGpuKernel = (node: Pick<GraphNode, "op" | "attrs">): boolean =>
  (kernels[node.op] ?? []).some((constraints) => takes(constraints, node as GraphNode));

/** The op and the types of a node that a kernel is chosen by. */
export function kernelText(node: Pick<GraphNode, "op" | "attrs">): string {
  const types = Object.entries(node.attrs).flatMap(([name, attr]) =>
    attr.kind === "type" ? [`${name}=${attr.value}`] : [],
  );
  return `${node.op}(${types.sort().join(", ")})`;
}
