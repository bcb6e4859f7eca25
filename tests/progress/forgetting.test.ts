import assert from "node:assert/strict";
import { test } from "node:test";
import { logLine } from "#cli/progress/log-lines";
import { emptyView } from "#cli/progress/run-view";
import { blocksOf } from "#tests/support/page-blocks";

test("the lines that docs/forgetting.md shows are those of a run", () => {
  const shown = blocksOf("docs/forgetting.md").filter(({ language }) => language === "text");
  const line = logLine(
    {
      ...{ type: "general.evaluated", step: 60, loss: 3.77, before: 3.41 },
      ...{ weight: 9840, seconds: 2.1 },
    },
    emptyView(0),
    0,
  );
  assert.deepEqual(
    shown.map(({ text }) => text.trim()),
    [line],
  );
});
