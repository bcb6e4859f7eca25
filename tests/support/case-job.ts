import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { writeSafetensors } from "#lib/checkpoint/safetensors-writer";
import { packageRoot } from "#lib/core/paths";
import { RandomStream } from "#lib/core/random";
import { type CommandOutcome, lockstepCommand } from "./lockstep-command.js";

/** A directory with a folder of tests/fixtures/cases in it, and the tiny model that its job names. */
export interface CaseJob {
  readonly directory: string;
  readonly modelDirectory: string;
  /** Absolute path of a file of the case. */
  readonly file: (name: string) => string;
  /** Writes the case's job with other settings; names of files in them are looked for in the case. */
  readonly writeJob: (
    settings?: Readonly<Record<string, unknown>>,
    name?: string,
  ) => Promise<string>;
  /** Runs `lockstep` in the case's directory. */
  readonly lockstep: (
    args: readonly string[],
    onEvent?: Parameters<typeof lockstepCommand>[2],
    environment?: Readonly<Record<string, string>>,
  ) => Promise<CommandOutcome>;
  readonly remove: () => Promise<void>;
}

interface CaseModelOptions {
  /** The head is the embedding table. @default false */
  readonly isTied?: boolean;
  /** The tokenizer writes <s> before a text. @default false */
  readonly addsBos?: boolean;
  readonly seed?: number;
}

/** @param name a folder of tests/fixtures/cases, or none for an empty one */
export async function createCaseJob(
  name: string | undefined,
  model: CaseModelOptions = {},
): Promise<CaseJob> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-case-"));
  if (name !== undefined) {
    await cp(join(packageRoot, "tests/fixtures/cases", name), directory, { recursive: true });
  }
  const modelDirectory = join(directory, "model");
  await writeCaseModel(modelDirectory, model);
  const file = (path: string): string => join(directory, path);
  const settings =
    name === undefined
      ? {}
      : (parse(await readFile(file("job.yaml"), "utf8")) as Record<string, unknown>);
  return {
    directory,
    modelDirectory,
    file,
    writeJob: async (changes = {}, job = "changed.yaml") => {
      await writeFile(file(job), stringify({ ...settings, ...changes }));
      return file(job);
    },
    lockstep: (args, onEvent = () => {}, environment = {}) =>
      lockstepCommand(
        args,
        join(directory, "cache"),
        onEvent,
        environment,
        process.execPath,
        directory,
      ),
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}

/** Ids 0 to 3; a byte b is the token 4 + b. */
const caseSpecialTokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"] as const;

const chatTemplate =
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** A Llama of 2 layers of 32 with a tokenizer of bytes, <|im_end|> as its end token, and ChatML. */
export async function writeCaseModel(
  directory: string,
  { isTied = false, addsBos = false, seed = 1 }: CaseModelOptions = {},
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const writeJson = (name: string, value: unknown): Promise<void> =>
    writeFile(join(directory, name), JSON.stringify(value));
  const ids = { bos_token_id: addsBos ? 3 : 0, eos_token_id: 2, pad_token_id: 0 };
  await writeJson("config.json", {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: vocabSize,
    hidden_size: hiddenSize,
    intermediate_size: intermediateSize,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 1024,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    hidden_act: "silu",
    tie_word_embeddings: isTied,
    torch_dtype: "float32",
    ...ids,
  });
  await writeJson("generation_config.json", ids);
  await writeJson("tokenizer.json", byteTokenizer(addsBos));
  await writeJson("tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: addsBos ? "<s>" : "<|endoftext|>",
    eos_token: "<|im_end|>",
    pad_token: "<|endoftext|>",
    model_max_length: 1024,
  });
  await writeFile(join(directory, "chat_template.jinja"), chatTemplate);
  await writeWeights(join(directory, "model.safetensors"), isTied, seed);
}

const [vocabSize, hiddenSize, intermediateSize] = [264, 32, 64];

async function writeWeights(file: string, isTied: boolean, seed: number): Promise<void> {
  const [h, kv] = [hiddenSize, hiddenSize / 2];
  const layer = (i: number): [string, number[]][] => [
    [`model.layers.${i}.input_layernorm.weight`, [h]],
    [`model.layers.${i}.post_attention_layernorm.weight`, [h]],
    [`model.layers.${i}.self_attn.q_proj.weight`, [h, h]],
    [`model.layers.${i}.self_attn.k_proj.weight`, [kv, h]],
    [`model.layers.${i}.self_attn.v_proj.weight`, [kv, h]],
    [`model.layers.${i}.self_attn.o_proj.weight`, [h, h]],
    [`model.layers.${i}.mlp.gate_proj.weight`, [intermediateSize, h]],
    [`model.layers.${i}.mlp.up_proj.weight`, [intermediateSize, h]],
    [`model.layers.${i}.mlp.down_proj.weight`, [h, intermediateSize]],
  ];
  const shapes = new Map<string, number[]>([
    ["model.embed_tokens.weight", [vocabSize, h]],
    ["model.norm.weight", [h]],
    ...layer(0),
    ...layer(1),
    ...(isTied ? [] : [["lm_head.weight", [vocabSize, h]] as [string, number[]]]),
  ]);
  const names = [...shapes.keys()];
  const entries = names.map((name) => ({
    name,
    dtype: "F32" as const,
    shape: shapes.get(name) ?? [],
  }));
  await writeSafetensors(file, entries, (name) => {
    const shape = shapes.get(name) ?? [];
    const size = shape.reduce((product, length) => product * length, 1);
    const random = new RandomStream(seed, "test", names.indexOf(name));
    const values = Float32Array.from({ length: size }, () =>
      shape.length === 1 ? 1 : 0.28 * (random.nextFloat64() - 0.5),
    );
    return new Uint8Array(values.buffer);
  });
}

/** GPT-2's letters for bytes. */
function byteLetters(): string[] {
  const isPlain = (byte: number): boolean =>
    (byte >= 33 && byte < 127) || (byte >= 161 && byte !== 173);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCodePoint(isPlain(byte) ? byte : 256 + others++),
  );
}

function byteTokenizer(addsBos: boolean): unknown {
  const tokens = [...caseSpecialTokens, ...byteLetters()];
  const bos = { SpecialToken: { id: "<s>", type_id: 0 } };
  const sequence = (id: "A" | "B"): unknown => ({ Sequence: { id, type_id: id === "A" ? 0 : 1 } });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: caseSpecialTokens.map((content, id) => ({
      ...{ id, content, single_word: false, lstrip: false, rstrip: false },
      ...{ normalized: false, special: true },
    })),
    normalizer: null,
    pre_tokenizer: {
      ...{ type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    },
    post_processor: addsBos
      ? {
          type: "TemplateProcessing",
          single: [bos, sequence("A")],
          pair: [bos, sequence("A"), bos, sequence("B")],
          special_tokens: { "<s>": { id: "<s>", ids: [3], tokens: ["<s>"] } },
        }
      : null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [],
    },
  };
}
