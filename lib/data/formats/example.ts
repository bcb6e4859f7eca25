import type { ColumnMapping, InstructionForm } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { Label } from "#lib/core/labels";
import type { ChatMessage } from "#lib/data/chat-template";
import { atPlace, type JsonData, jsonDataOf } from "#lib/data/json-data";

/** What an example says, whatever its file and its columns looked like. */
export type Example =
  | TextExample
  | CompletionExample
  | ConversationExample
  | LabelledExample
  | PairExample;

/** Every token is learnt. */
interface TextExample {
  readonly kind: "text";
  readonly text: string;
}

/** The completion is learnt, and that it ends. */
export interface CompletionExample {
  readonly kind: "completion";
  readonly prompt: string;
  readonly completion: string;
}

/** The answers that are marked are learnt; the model's chat template gives the text. */
export interface ConversationExample {
  readonly kind: "conversation";
  readonly messages: readonly ChatMessage[];
  /** Of each message: whether it is learnt. Only messages of the assistant are. */
  readonly isLearnt: readonly boolean[];
  /** Of each message, how much its tokens count; absent: those that are learnt count 1. */
  readonly weights?: readonly number[];
  /** As the template takes them: JSON schemas of functions, or null. */
  readonly tools: JsonData;
}

export interface LabelledExample {
  readonly kind: "labelled";
  readonly text: string;
  readonly pair: string | null;
  readonly label: Label;
}

/** Two answers to one prompt. */
export interface PairExample {
  readonly kind: "pair";
  readonly chosen: PairSide;
  readonly rejected: PairSide;
  /** By how much the chosen one is to be better; null: nobody says. */
  readonly margin: number | null;
}

/** A prompt with one of its answers, which alone is learnt. */
export type PairSide = CompletionExample | ConversationExample;

export const datasetFormats = [
  "text",
  "prompt-completion",
  "messages",
  "alpaca",
  "sharegpt",
  "classification",
  "preference",
] as const;
export type DatasetFormat = (typeof datasetFormats)[number];

/** Names of columns that differ from a format's own; LLaMA-Factory's `columns` and `tags`. */
export interface ColumnNames {
  readonly text?: string;
  readonly prompt?: string;
  readonly query?: string;
  readonly response?: string;
  readonly history?: string;
  readonly messages?: string;
  readonly system?: string;
  readonly tools?: string;
  readonly label?: string;
  /** How much the example counts in the loss; read where a column is named. */
  readonly weight?: string;
  readonly pair?: string;
  readonly chosen?: string;
  readonly rejected?: string;
  /** By how much the chosen answer is to be better. */
  readonly margin?: string;
}
interface RoleTags {
  readonly role_tag?: string;
  readonly content_tag?: string;
  readonly user_tag?: string;
  readonly assistant_tag?: string;
  readonly observation_tag?: string;
  readonly function_tag?: string;
  readonly system_tag?: string;
}
/** How messages whose parts and roles have other names are read: axolotl's `chat_template`. */
export interface ChatForm {
  /** The data's names of a message's parts, by ours. */
  readonly parts: Readonly<Record<string, string>>;
  /** Our roles by the data's; others stay as they are. */
  readonly roles: ReadonlyMap<string, string>;
  /** Part of a message that says whether it is learnt. */
  readonly learntPart?: string;
  readonly dropsSystem: boolean;
}
export interface FormatOptions {
  readonly columns?: ColumnNames;
  readonly tags?: RoleTags;
  /** Of the format `messages`. */
  readonly chat?: ChatForm;
  /** Of the format `prompt-completion`: what writes the prompt out of an example's parts. */
  readonly instructions?: InstructionForm;
  /** Of the format `preference`: how its prompts stand in a row, where that is known (LLaMA-Factory's `ranking`). */
  readonly prompts?: "alpaca" | "sharegpt" | "messages";
  /** What is learnt of pairs knows no margins: their column is not read. @default false */
  readonly ignoresMargins?: boolean;
  /** Columns of the data by any of our names, which also tell the format: the key `columns`. */
  readonly mapping?: ColumnMapping;
  /** Examples with a label are texts: somebody named the column of texts, and the model continues texts. */
  readonly prefersText?: boolean;
}

/** An example while it is read in one format: its fields with checks that name it. */
export class RawFields {
  readonly place: string;
  readonly format: DatasetFormat;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(format: DatasetFormat, place: string, fields: Readonly<Record<string, unknown>>) {
    this.format = format;
    this.place = place;
    this.fields = fields;
  }

  /** null and an absent field are the same. */
  get(field: string): unknown {
    return Object.hasOwn(this.fields, field) ? (this.fields[field] ?? undefined) : undefined;
  }

  /**
   * A field with what is nested in it. Keys without a value are not there: tables give all objects of a
   * column the same keys.
   *
   * @throws E_DATA_ROW_FORMAT for what is nested too deep
   */
  data(field: string): JsonData {
    return this.dataOf(this.get(field));
  }

  dataOf(value: unknown): JsonData {
    return atPlace(this.place, () => jsonDataOf(value, { dropsNull: true }));
  }

  /** @throws E_DATA_ROW_FORMAT */
  string(field: string): string {
    const value = this.get(field);
    if (typeof value === "string") return value;
    const isNull = value === undefined && Object.hasOwn(this.fields, field);
    if (isNull) throw this.wrong(`${JSON.stringify(field)} is null`);
    throw this.wrong(
      value === undefined
        ? `it lacks ${JSON.stringify(field)} (it has ${Object.keys(this.fields).slice(0, 10).join(", ") || "no fields"})`
        : `${JSON.stringify(field)} is not text`,
    );
  }

  optionalString(field: string): string {
    return this.get(field) === undefined ? "" : this.string(field);
  }

  wrong(problem: string): LockstepError {
    return new LockstepError("E_DATA_ROW_FORMAT", {
      place: this.place,
      format: this.format,
      problem,
    });
  }

  /** @param message counted from 1 */
  blankAnswer(message: number): LockstepError {
    return new LockstepError("E_DATA_BLANK_ANSWER", { place: this.place, message });
  }

  noAnswer(what?: "label" | "chosen answer" | "rejected answer"): LockstepError {
    const facts = what === undefined ? {} : { what };
    return new LockstepError("E_DATA_NO_ANSWER", { place: this.place, ...facts });
  }
}
