import { type ResolvedConfig, withChanges } from "#lib/config/index";
import { today, type Tokenizer } from "#lib/data/index";

// A template that writes today's date (Llama 3.1, Granite) would give a run other texts each day, and the
// second half of a resumed run others than its first. So the date is a setting, saved with the run.

/**
 * The day that a run's chat template writes: the one that is set, for a run that goes on that of its beginning,
 * else today. Settled once, before any text is rendered.
 */
export const settleTemplateDate = ({ chat_template_date: asked }: ResolvedConfig): string =>
  asked ?? today();

const writesDate = ({ chatTemplate }: Tokenizer): boolean => chatTemplate?.writesDate === true;

/** The configuration with its run's day, where the chat template writes it; as it was elsewhere. */
export function withDateOf(
  tokenizer: Tokenizer,
  config: ResolvedConfig,
  date: string,
): ResolvedConfig {
  return writesDate(tokenizer) ? withChanges(config, { chat_template_date: date }) : config;
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
