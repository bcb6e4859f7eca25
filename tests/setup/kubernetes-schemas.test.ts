import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";

const { schemaFiles } = (await import(
  join(packageRoot, "scripts/setup/kubernetes-schemas.mjs")
)) as {
  schemaFiles(definitions: Record<string, object>): Record<string, object>;
};

const definitions = {
  "io.k8s.api.apps.v1.StatefulSet": {
    type: "object",
    properties: {
      spec: { $ref: "#/definitions/io.k8s.api.apps.v1.StatefulSetSpec" },
      port: { type: "string", format: "int-or-string" },
      labels: { type: "object", additionalProperties: { type: "string" } },
    },
    "x-kubernetes-group-version-kind": [{ group: "apps", kind: "StatefulSet", version: "v1" }],
  },
  "io.k8s.api.core.v1.Service": {
    properties: {},
    "x-kubernetes-group-version-kind": [{ group: "", kind: "Service", version: "v1" }],
  },
};

test("each kind has the file name that kubeconform asks for", () => {
  const files = schemaFiles(definitions);
  assert.deepEqual(Object.keys(files).sort(), [
    "_definitions.json",
    "service-v1.json",
    "statefulset-apps-v1.json",
  ]);
  assert.deepEqual(files["statefulset-apps-v1.json"], {
    $ref: "_definitions.json#/definitions/io.k8s.api.apps.v1.StatefulSet",
  });
});

test("a named type refuses unknown properties, a map does not, and int-or-string takes both", () => {
  const { definitions: strict } = schemaFiles(definitions)["_definitions.json"] as {
    definitions: Record<string, object>;
  };
  const properties = {
    spec: { $ref: "#/definitions/io.k8s.api.apps.v1.StatefulSetSpec" },
    port: { format: "int-or-string", oneOf: [{ type: "string" }, { type: "integer" }] },
    labels: { type: "object", additionalProperties: { type: "string" } },
  };
  assert.deepEqual(strict["io.k8s.api.apps.v1.StatefulSet"], {
    type: "object",
    properties,
    "x-kubernetes-group-version-kind": [{ group: "apps", kind: "StatefulSet", version: "v1" }],
    additionalProperties: false,
  });
  assert.deepEqual(strict["io.k8s.apimachinery.pkg.api.resource.Quantity"], {
    oneOf: [{ type: "string" }, { type: "number" }],
  });
});
