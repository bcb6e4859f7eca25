import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type ResolvedConfig, withTemplateDate } from "#lib/core/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { today, type Tokenizer } from "#lib/data/index";

// A template that writes today's date (Llama 3.1, Granite) would give a run other texts each day, and the
// second half of a resumed run others than its first. So the date is a setting, saved with the run.

/** The day that the chat template wrote in a checkpoint's run, undefined where it wrote none. */
export async function savedTemplateDate(checkpoint: string): Promise<string | undefined> {
  const { parseConfigText } = await import("#lib/core/config/yaml-file");
  const file = join(checkpoint, "lockstep", "config.yaml");
  const date = parseConfigText(await readFile(file, "utf8"), file).get("chat_template_date")?.value;
  return typeof date === "string" ? date : undefined;
}

/**
 * The day that a run's chat template writes: the one that is set, else that of the run that goes on, else
 * today. Settled once, before any text is rendered.
 *
 * @throws E_CONFIG_CONFLICT where a run would go on with another day
 */
export function settleTemplateDate(
  { chat_template_date: asked }: ResolvedConfig,
  resumed?: string,
): string {
  if (asked !== null && resumed !== undefined && asked !== resumed) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "chat_template_date and resume_from_checkpoint",
      reason: `the checkpoint was made with ${resumed}, now it is ${asked}, and the run would not go on where it stopped`,
    });
  }
  return asked ?? resumed ?? today();
}

const writesDate = ({ chatTemplate }: Tokenizer): boolean => chatTemplate?.writesDate === true;

/** The configuration with its run's day, where the chat template writes it; as it was elsewhere. */
export function withDateOf(
  tokenizer: Tokenizer,
  config: ResolvedConfig,
  date: string,
): ResolvedConfig {
  return writesDate(tokenizer) ? withTemplateDate(config, date) : config;
}

/** For a person, where there is something to tell. */
export function describeTemplateDate(
  { chat_template_date: date }: ResolvedConfig,
  tokenizer: Tokenizer,
): string[] {
  if (date === null) return [];
  if (writesDate(tokenizer))
    return [`chat template: it writes the date, ${date} in this run (chat_template_date)`];
  return ["chat_template_date has no effect: the model's chat template writes no date"];
}
