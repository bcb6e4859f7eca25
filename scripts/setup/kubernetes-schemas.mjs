// JSON schemas of the Kubernetes API for kubeconform, made from the API's own OpenAPI description: kubeconform
// would fetch them from GitHub one by one.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { say } from "./console.mjs";
import { goModuleDirectory } from "./go.mjs";
import { placeDirectory } from "./place.mjs";

const KUBERNETES_VERSION = "v1.37.2";
const DEFINITIONS_FILE = "_definitions.json";

/** Two types that the API describes as strings and accepts as numbers too. */
const UNION_TYPES = {
  "io.k8s.apimachinery.pkg.api.resource.Quantity": ["string", "number"],
  "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["string", "integer"],
};

/**
 * Puts the schemas into the cache.
 *
 * @returns {Promise<{kubernetesSchemas: string}>} their directory; kubeconform's -schema-location is
 *   `DIRECTORY/{{.ResourceKind}}{{.KindSuffix}}.json`
 */
export async function installKubernetesSchemas(cacheDir) {
  const directory = join(cacheDir, "tools", `kubernetes-schemas-${KUBERNETES_VERSION}`);
  await placeDirectory(directory, async (partialDir) => {
    say(`fetching the schemas of Kubernetes ${KUBERNETES_VERSION}`);
    const sources = await goModuleDirectory(`k8s.io/kubernetes@${KUBERNETES_VERSION}`, partialDir);
    const swagger = JSON.parse(
      readFileSync(join(sources, "api", "openapi-spec", "swagger.json"), "utf8"),
    );
    for (const [name, schema] of Object.entries(schemaFiles(swagger.definitions))) {
      writeFileSync(join(partialDir, name), JSON.stringify(schema));
    }
  });
  return { kubernetesSchemas: directory };
}

/**
 * One file of all definitions and a file per kind that refers to it.
 *
 * @param {Record<string, any>} definitions of an OpenAPI 2 document
 * @returns {Record<string, object>} schemas by file name
 */
export function schemaFiles(definitions) {
  const strict = {};
  for (const [name, schema] of Object.entries(definitions)) strict[name] = strictSchema(schema);
  for (const [name, types] of Object.entries(UNION_TYPES)) {
    strict[name] = { oneOf: types.map((type) => ({ type })) };
  }
  const files = { [DEFINITIONS_FILE]: { definitions: strict } };
  for (const [name, schema] of Object.entries(definitions)) {
    for (const { group, kind, version } of schema["x-kubernetes-group-version-kind"] ?? []) {
      const groupPart = group ? `-${group.split(".")[0]}` : "";
      files[`${kind.toLowerCase()}${groupPart}-${version}.json`] = {
        $ref: `${DEFINITIONS_FILE}#/definitions/${name}`,
      };
    }
  }
  return files;
}

/** Refuses properties that a type does not name, which is how kubectl catches a misspelt key. */
function strictSchema(value) {
  if (Array.isArray(value)) return value.map(strictSchema);
  if (value === null || typeof value !== "object") return value;
  if ("$ref" in value && typeof value.$ref === "string") return { $ref: value.$ref };
  const result = {};
  for (const [key, inner] of Object.entries(value)) result[key] = strictSchema(inner);
  if (result.format === "int-or-string") {
    delete result.type;
    result.oneOf = [{ type: "string" }, { type: "integer" }];
  }
  const describesObject = (result.type ?? "object") === "object";
  if ("properties" in result && describesObject && !("additionalProperties" in result)) {
    result.additionalProperties = false;
  }
  return result;
}
