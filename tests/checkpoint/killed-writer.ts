import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { saveAtomically } from "#lib/checkpoint/index";

/** Entry of a child process that stops in the middle of a save, says so, and waits to be killed. */
const [directory] = process.argv.slice(2);
await saveAtomically(directory as string, async (temporary) => {
  writeFileSync(join(temporary, "half"), Buffer.alloc(1000));
  process.stdout.write("writing\n");
  await new Promise(() => setInterval(() => {}, 1000));
});
