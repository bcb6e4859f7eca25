import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { importGguf, readTrainerState } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";

// LLaMA-Factory's example files as they are, in the whole command; the model is a tiny one.

const fixtures = join(packageRoot, "tests/fixtures/configs");
const exampleFile = (name: string): string => join(fixtures, `llamafactory_${name}_sft.yaml`);
let directory = "";

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-llama-factory-"));
  const model = join(directory, "model");
  await importGguf(join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"), model);
  await writeFile(
    join(model, "chat_template.jinja"),
    "{% for m in messages %}<|start|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}" +
      "{% if add_generation_prompt %}<|start|>assistant: {% endif %}",
  );
});

after(() => rm(directory, { recursive: true, force: true }));

const lockstep = (...args: string[]): Promise<CommandOutcome> =>
  lockstepCommand(args, join(directory, "cache"));

/** What a machine changes in a file that was written for another one. */
const here = (output: string): string[] => [
  ...["--model_name_or_path", join(directory, "model")],
  ...["--dataset_dir", join(fixtures, "data")],
  ...["--output_dir", output, "--cutoff_len", "128", "--use_cpu"],
  ...["--engine_module", join(packageRoot, "dist/tests/support/fake-engine.js")],
];

test("lockstep config prints what a full fine-tuning resolves to", async () => {
  const { code, lines, stderr } = await lockstep("config", exampleFile("full"));
  assert.equal(code, 0, stderr);
  assert.ok(lines.includes("max_length: 2048"));
  // The file was written for another machine; that is no error, and is said.
  assert.match(stderr, /^warning: There is no model models\/tiny-instruct: looked/m);
  assert.match(stderr, /^warning: The dataset "greetings" is neither/m);
  assert.match(
    stderr,
    /^warning: .*yaml:13: template has no effect: the chat template of the model/m,
  );
});

test("what is not here fails with one line and a hint", async () => {
  for (const command of ["config", "train"]) {
    const args = [exampleFile("qlora"), "--quantization_bit", "8"];
    const { code, stderr } = await lockstep(command, ...args);
    assert.equal(code, 1);
    const [line, hint, ...rest] = stderr.trimEnd().split("\n");
    assert.match(line ?? "", /^E_CONFIG_UNSUPPORTED: quantization_bit: 8 .*--quantization_bit/);
    assert.match(hint ?? "", /^ {2}\S/);
    assert.deepEqual(rest, []);
  }
});

test("the full example trains on the data sets that its dataset_info.json describes", async () => {
  const output = join(directory, "full");
  const { code, stderr, of } = await lockstep(
    ...["train", exampleFile("full"), "--json-logs", ...here(output)],
    ...["--logging_first_step", "true", "--eval_steps", "1", "--eval_delay", "3"],
    ...["--include_num_input_tokens_seen", "non_padding"],
  );
  assert.equal(code, 0, stderr);
  // Four conversations of two files, one kept for validation: 3 rows in steps of 2, for 3 epochs.
  const [started] = of("run.started");
  assert.equal(started?.numTrainRows, 3);
  assert.equal(started?.numValidationRows, 1);
  assert.equal(of("step.completed").length, 6);
  assert.equal(of("run.completed")[0]?.outcome, "finished");
  // The schedule of the file: cosine with a warm-up of ceil(0.1 x 6) steps.
  assert.deepEqual(
    of("step.completed").map(({ learningRate }) => Number((learningRate / 1e-5).toFixed(4))),
    [0, 1, 0.9045, 0.6545, 0.3455, 0.0955],
  );
  const { log_history } = await readTrainerState(output);
  const stepsOf = (field: string): number[] =>
    log_history.filter((entry) => field in entry).map(({ step }) => step);
  // logging_steps is 10: the first step by the flag, the last one always.
  assert.deepEqual(stepsOf("loss"), [1, 6]);
  assert.deepEqual(stepsOf("eval_loss"), [3, 4, 5, 6]);
  // Three epochs of the rows' own tokens, far from 9 rows of 128 with padding.
  const [, tokens] = /([\d,]+) tokens, [\d,]+ supervised/.exec(started?.dataLines?.[0] ?? "") ?? [];
  assert.equal(log_history.at(-1)?.["num_input_tokens_seen"], 3 * Number(tokens));
});

test("a data set that the index does not have is named before anything is trained", async () => {
  const { code, stderr } = await lockstep(
    ...["train", exampleFile("full"), ...here(join(directory, "none"))],
    ...["--dataset", "greeting"],
  );
  assert.equal(code, 1);
  assert.match(stderr, /^E_DATASET_INFO: .*no data set "greeting" \(did you mean greetings\?\)/m);
});
