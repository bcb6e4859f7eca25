// Continues a text with a model, as it comes.
//
//   node examples/generate.mjs MODEL TEXT

import { TextGenerator } from "lockstep";

const [model = "", text = ""] = process.argv.slice(2);
const generator = await TextGenerator.open(model, { maxLength: 256 });
for (const warning of generator.warnings) console.warn(`warning: ${warning}`);
process.stdout.write(text);
await generator.generate([text], {
  maxNewTokens: 40,
  onText: (_, piece) => process.stdout.write(piece),
});
process.stdout.write("\n");
generator.close();
