import type { PlacedExample } from "./examples.js";

/** Characters of an example that are tokenised, or about so many. */
export function charactersOf({ example }: Pick<PlacedExample, "example">): number {
  switch (example.kind) {
    case "text":
      return example.text.length;
    case "completion":
      return example.prompt.length + example.completion.length;
    case "conversation":
      return example.messages.reduce((sum, { content = "" }) => sum + content.length + 64, 0);
    case "labelled":
      return example.text.length + (example.pair?.length ?? 0);
    case "pair":
      return [example.chosen, example.rejected].reduce(
        (sum, side) => sum + charactersOf({ example: side }),
        0,
      );
  }
}
