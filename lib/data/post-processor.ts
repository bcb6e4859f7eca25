import { LockstepError } from "#lib/core/errors/index";
import { isRecord } from "./files.js";

/**
 * Checks what the tokenizers library takes for granted of a tokenizer.json: it ends the process where a template puts
 * a token that its own list does not have.
 *
 * @throws E_TOKENIZER_INVALID
 */
export function checkPostProcessor(file: string, definition: unknown): void {
  const processor: unknown = isRecord(definition) ? definition["post_processor"] : undefined;
  for (const template of templatesOf(processor)) {
    const { special_tokens: listed } = template;
    for (const pieces of [template["single"], template["pair"]]) {
      for (const token of specialTokensOf(pieces)) {
        if (isRecord(listed) && Object.hasOwn(listed, token)) continue;
        const problem = `its post-processor puts the token ${JSON.stringify(token)}, which its special_tokens do not have`;
        throw new LockstepError("E_TOKENIZER_INVALID", { file, problem });
      }
    }
  }
}

/** Post-processors that fill in a template, also those of a sequence. */
function templatesOf(processor: unknown): Readonly<Record<string, unknown>>[] {
  if (!isRecord(processor)) return [];
  const { processors } = processor;
  const inner = Array.isArray(processors) ? (processors as unknown[]).flatMap(templatesOf) : [];
  return [processor, ...inner];
}

function specialTokensOf(pieces: unknown): string[] {
  if (!Array.isArray(pieces)) return [];
  return (pieces as unknown[]).flatMap((piece) => {
    const special: unknown = isRecord(piece) ? piece["SpecialToken"] : undefined;
    return isRecord(special) && typeof special["id"] === "string" ? [special["id"]] : [];
  });
}
