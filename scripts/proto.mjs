// Writes proto/gen/fields.txt: every field of every message with its number and type, one a line.
//
// The .proto files are read at run time, so nothing else is generated from them. This list makes a changed
// number or type, which breaks peers of another version, a visible line of a change.
//
//   node scripts/proto.mjs          writes the list
//   node scripts/proto.mjs --check  fails when the list is not what the .proto files say

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import protobuf from "protobufjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const protoDir = join(root, "proto");
const listFile = join(protoDir, "gen", "fields.txt");

const list = describeSchemas();
if (!process.argv.includes("--check")) {
  mkdirSync(dirname(listFile), { recursive: true });
  writeFileSync(listFile, list);
} else if (!existsSync(listFile) || readFileSync(listFile, "utf8") !== list) {
  console.error("proto: proto/gen/fields.txt does not match the .proto files; run: npm run proto");
  process.exitCode = 1;
}

function describeSchemas() {
  const lines = [];
  for (const path of readdirSync(protoDir, { recursive: true, encoding: "utf8" }).sort()) {
    if (!path.endsWith(".proto")) continue;
    const schema = new protobuf.Root();
    schema.loadSync(join(protoDir, path)).resolveAll();
    lines.push(`# ${path}`, ...describe(schema), "");
  }
  return lines.join("\n");
}

/** @returns {string[]} in the order of the file */
function describe(object) {
  const name = object.fullName.replace(/^\./, "");
  const lines = [];
  if (object instanceof protobuf.Type) {
    for (const field of object.fieldsArray) lines.push(describeField(name, field));
    const reserved = (object.reserved ?? []).map((entry) =>
      Array.isArray(entry) ? entry.join("-") : entry,
    );
    if (reserved.length > 0) lines.push(`${name} reserves ${reserved.join(", ")}`);
  } else if (object instanceof protobuf.Enum) {
    for (const [value, number] of Object.entries(object.values))
      lines.push(`${name}.${value} = ${number}`);
  } else if (object instanceof protobuf.Service) {
    for (const method of object.methodsArray) {
      const request = `${method.requestStream ? "stream " : ""}${method.requestType}`;
      const reply = `${method.responseStream ? "stream " : ""}${method.responseType}`;
      lines.push(`${name}.${method.name}(${request}) returns ${reply}`);
    }
  }
  for (const nested of object.nestedArray ?? []) lines.push(...describe(nested));
  return lines;
}

function describeField(owner, field) {
  const type = field.map ? `map<${field.keyType}, ${field.type}>` : field.type;
  const repeated = field.repeated ? "repeated " : "";
  const choice = field.partOf ? ` in ${field.partOf.name}` : "";
  return `${owner}.${field.name} = ${field.id}: ${repeated}${type}${choice}`;
}
