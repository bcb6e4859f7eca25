// Writes docs/keys-of-other-tools.md from the tables of the build.
//
//   node scripts/config-doc.mjs [--check]
//
// --check  writes nothing and fails when the page differs from the tables

import { loadBuilt, writePage } from "./generated-page.mjs";

const { foreignTables } = await loadBuilt("lib/config/foreign-keys");
const { parametersNames } = await loadBuilt("lib/parameters/index");

function whatHappens(rule) {
  switch (rule.kind) {
    case "renamed":
      if (rule.difference !== undefined) return `read as \`${rule.to}\`: ${rule.difference}`;
      return rule.only === undefined
        ? `read as \`${rule.to}\``
        : `read as \`${rule.to}\` where it is ${rule.only.values
            .filter((value) => value !== "")
            .map((value) => `\`${value}\``)
            .join(" or ")}: ${rule.only.reason}`;
    case "ignored":
      return `no effect: ${rule.reason}`;
    case "joint":
      return rule.meaning;
    case "method":
      return `an option of ${rule.method}: no effect beside \`finetuning_type: ${parametersNames.join("` or `")}\`, refused otherwise`;
    case "fixed": {
      const allowed = rule.allowed.filter((value) => value !== null && value !== "");
      const values = allowed.map((value) => `\`${JSON.stringify(value)}\``).join(" or ");
      return `${values === "" ? "refused" : `only ${values}`}: ${rule.reason}`;
    }
  }
}

let text = `# Keys of other tools

What becomes of keys that Lockstep does not own, by the tool whose files hold them. A key without effect
gives a warning, unless it holds its default; a key that would change results is refused at any value that
Lockstep does not follow. \`null\` says nothing. This page is written by \`node scripts/config-doc.mjs\`.
`;
for (const [tool, table] of Object.entries(foreignTables)) {
  const rows = new Map();
  for (const [key, rule] of Object.entries(table)) {
    const row = whatHappens(rule);
    rows.set(row, [...(rows.get(row) ?? []), `\`${key}\``]);
  }
  text += `\n## ${tool}\n\n| key | |\n|---|---|\n`;
  for (const [row, keys] of rows) text += `| ${keys.join(", ")} | ${row} |\n`;
}
writePage("keys-of-other-tools.md", text, "config-doc.mjs");
