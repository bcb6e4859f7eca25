// Writes docs/errors.md from the error catalogue of the build.
//
//   node scripts/errors-doc.mjs [--check]
//
// --check  writes nothing and fails when the page differs from the catalogue

import { loadBuilt, writePage } from "./generated-page.mjs";

const sections = [
  ["System", "system", "systemErrors"],
  ["Configuration", "config", "configErrors"],
  ["Hugging Face Hub", "hub", "hubErrors"],
  ["Models and checkpoints", "checkpoint", "checkpointErrors"],
  ["Data", "data", "dataErrors"],
  ["Graph and engine", "graph", "graphErrors"],
  ["Cluster", "cluster", "clusterErrors"],
  ["Security", "security", "securityErrors"],
  ["Reducer", "reducer", "reducerErrors"],
  ["NATS", "nats", "natsErrors"],
  ["Queue", "queue", "queueErrors"],
];

/** Stands for any fact of an error and shows its name: `<file>`. */
function placeholder(name) {
  const text = `<${name}>`;
  return new Proxy(() => {}, {
    get(_, key) {
      if (key === Symbol.toPrimitive || key === "toString" || key === "valueOf") return () => text;
      // What a message makes of a list, a number or an address shows the fact's name.
      const shown = ["join", "map", "slice", "filter", "toFixed", "toLocaleString", "replace"];
      if (shown.includes(key)) {
        return () => placeholder(name);
      }
      // JSON.stringify asks for it.
      if (key === "toJSON") return () => text;
      if (key === "length") return 2;
      return placeholder(`${name}.${String(key)}`);
    },
  });
}

function shownMessage(entry) {
  const details = new Proxy({}, { get: (_, key) => placeholder(String(key)) });
  // Arithmetic on a fact that stands for a number.
  return String(entry.message(details)).replaceAll("NaN", "<number>");
}

async function render() {
  const catalogue = await load("index");
  const known = new Set();
  let text = `# Errors

Every error that Lockstep raises on purpose: what happened, and what to do next. The command line shows
both; \`<name>\` stands for a fact of the case. *Retryable* means that the same call may succeed later
without a change by a person. This page is written by \`node scripts/errors-doc.mjs\`.
`;
  for (const [title, file, name] of sections) {
    const entries = Object.entries((await load(file))[name]);
    if (entries.length === 0) continue;
    text += `\n## ${title}\n`;
    for (const [code, entry] of entries) {
      known.add(code);
      text += `\n### ${code}\n\n${shownMessage(entry)}\n\n`;
      text += `${entry.retryable ? "*Retryable.* " : ""}${entry.hint}\n`;
    }
  }
  const forgotten = Object.keys(catalogue.errorCatalogue).filter((code) => !known.has(code));
  if (forgotten.length > 0)
    throw new Error(`no section of this script has ${forgotten.join(", ")}`);
  return text;
}

const load = (name) => loadBuilt(`lib/core/errors/${name}`);

writePage("errors.md", await render(), "errors-doc.mjs");
