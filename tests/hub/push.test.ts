import assert from "node:assert/strict";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type HubSettings, preparePush } from "#lib/hub/index";
import { closedEndpoint, failure, type HubCase, startHub } from "#tests/hub/support";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { prepareTinyRun } from "#tests/support/tiny-run";

const token = "hf_verysecret";

interface PushCase extends HubCase {
  readonly output: string;
  readonly run: (args: readonly string[], more?: Record<string, string>) => Promise<CommandOutcome>;
  readonly train: (
    args: readonly string[],
    more?: Record<string, string>,
  ) => Promise<CommandOutcome>;
}

/** A run of six steps on an engine without TensorFlow, and a hub where `ada` may write. */
async function startPush(t: TestContext): Promise<PushCase> {
  const hub = await startHub(t);
  const { server, directory } = hub;
  server.users.set(token, { name: "ada", role: "write" });
  server.users.set("hf_reader", { name: "bob", role: "read" });
  await prepareTinyRun(directory);
  const output = join(directory, "tiny-result");
  const run: PushCase["run"] = (args, more = {}) =>
    lockstepCommand(args, directory, undefined, {
      ...{ HF_ENDPOINT: server.endpoint, HF_HOME: join(directory, "home"), HF_HUB_OFFLINE: "0" },
      ...more,
    });
  const train: PushCase["train"] = (args, more) =>
    run(
      ["train", join(directory, "job.yaml"), "--json-logs", "--output_dir", output, ...args],
      more,
    );
  return { ...hub, output, run, train };
}

/** Every file of the result that can be loaded, its history too, is in the repository with its bytes. */
async function assertPushed(
  { server, output }: PushCase,
  id: string,
  ofTasks: readonly string[] = [],
): Promise<void> {
  const { files } = server.repositories.get(id) ?? assert.fail(`no ${id}`);
  const expected = [
    ...["all_results.json", "chat_template.jinja", "config.json", "eval_results.json"],
    ...["generation_config.json", "model.safetensors", "special_tokens_map.json"],
    ...["tokenizer.json", "tokenizer_config.json", "train_results.json", "trainer_state.json"],
    ...ofTasks,
  ].sort();
  assert.deepEqual([...files.keys()].sort(), expected);
  for (const [name, { content }] of files) {
    assert.deepEqual(content, await readFile(join(output, name)), name);
  }
}

test("a finished run is pushed with its bytes, and its token is shown and saved nowhere", async (t) => {
  const push = await startPush(t);
  const job = join(push.directory, "job.yaml");
  await writeFile(
    job,
    `${await readFile(job, "utf8")}\npush_to_hub: true\nhub_model_id: lab/tiny\nhub_private_repo: true\nhub_token: ${token}\n`,
  );
  const { code, stderr, lines, of } = await push.train([]);
  assert.equal(code, 0, stderr);
  await assertPushed(push, "lab/tiny");
  assert.equal(push.server.repositories.get("lab/tiny")?.isPrivate, true);
  const details = of("phase.changed").map(({ detail = "" }) => detail);
  assert.ok(details.some((detail) => /^pushing to lab\/tiny: .* \(\d+ of 11\)$/.test(detail)));
  const { commit } = push.server.repositories.get("lab/tiny") ?? assert.fail();
  assert.ok(details.includes(`pushed to ${push.server.endpoint}/lab/tiny/commit/${commit}`));
  assert.equal(of("run.completed").length, 1);

  const texts = [stderr, ...lines];
  for (const name of await readdir(push.output, { recursive: true })) {
    const file = join(push.output, name);
    if ((await stat(file)).isFile()) texts.push(await readFile(file, "latin1"));
  }
  assert.ok(texts.length > 20);
  assert.ok(texts.every((text) => !text.includes(token)));
  for (const request of push.server.log) {
    assert.equal(request.authorization, request.host === "hub" ? `Bearer ${token}` : undefined);
  }
});

test("a finished run that was not pushed is pushed by its next start, and then needs no hub", async (t) => {
  const push = await startPush(t);
  const saving = ["--save_strategy", "steps", "--save_steps", "3"];
  const again = [...saving, "--resume_from_checkpoint", "auto", "--push_to_hub"];
  const first = await push.train(saving);
  assert.equal(first.code, 0, first.stderr);
  const pushed = await push.train(again, { HF_TOKEN: token });
  assert.equal(pushed.code, 0, pushed.stderr);
  assert.deepEqual(pushed.of("step.completed"), []);
  await assertPushed(push, "ada/tiny-result");
  const alone = await push.train(again, { HF_ENDPOINT: await closedEndpoint() });
  assert.equal(alone.code, 0, alone.stderr);
  assert.match(alone.lines.join("\n"), /Nothing is left to do/);
  const elsewhere = await push.train([...again, "--hub_model_id", "ada/other"], {
    HF_TOKEN: token,
  });
  assert.equal(elsewhere.code, 0, elsewhere.stderr);
  await assertPushed(push, "ada/other");
});

test("a push that fails leaves the result, and lockstep push does it again", async (t) => {
  const push = await startPush(t);
  const { server, output } = push;
  // Somebody else's repository: the user may not write there, which is seen at the end.
  server.add("ada/tiny-result", { "README.md": "hers" }).refusal = { status: 500, code: "" };
  const failed = await push.train(["--push_to_hub"], { HF_TOKEN: token });
  assert.equal(failed.code, 1);
  assert.match(
    failed.stderr,
    /E_HUB_PUSH.*The result is saved in .*tiny-result, but was not pushed to ada\/tiny-result at http.*it answered 500/,
  );
  assert.match(failed.stderr, /lockstep push DIR ID/);
  assert.equal(failed.of("run.completed")[0]?.outcome, "finished");
  assert.ok((await stat(join(output, "model.safetensors"))).size > 0);

  server.repositories.delete("ada/tiny-result");
  const again = await push.run(["push", output, "tiny-result"], { HF_TOKEN: token });
  assert.equal(again.code, 0, again.stderr);
  await assertPushed(push, "ada/tiny-result");
  assert.match(
    again.lines.join("\n"),
    /^Pushed .*tiny-result to http.*\/ada\/tiny-result\/commit\//,
  );

  // What a reader would take for weights of this model goes; what a person put there stays.
  const { files } = server.repositories.get("ada/tiny-result") ?? assert.fail();
  const stray = { content: Buffer.from("x"), isLarge: false };
  for (const name of ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]) {
    files.set(name, stray);
  }
  for (const name of ["pytorch_model.bin", "notes.txt"]) files.set(name, stray);
  const third = await push.run(["push", output, "ada/tiny-result"], { HF_TOKEN: token });
  assert.equal(third.code, 0, third.stderr);
  assert.ok(files.delete("notes.txt"));
  await assertPushed(push, "ada/tiny-result");

  // So do models of tasks, in their folders.
  for (const name of ["config.json", "model.safetensors", "notes.txt"]) {
    await mkdir(join(output, "tasks/topic"), { recursive: true });
    await writeFile(join(output, "tasks/topic", name), name);
  }
  files.set("tasks/mood/model.safetensors", stray);
  const fourth = await push.run(["push", output, "ada/tiny-result"], { HF_TOKEN: token });
  assert.equal(fourth.code, 0, fourth.stderr);
  const ofTasks = ["tasks/topic/config.json", "tasks/topic/model.safetensors"];
  await assertPushed(push, "ada/tiny-result", ofTasks);

  const reader = await push.run(["push", output, "x/y"], { HF_TOKEN: "hf_reader" });
  assert.match(
    reader.stderr,
    /^E_HUB_TOKEN: A push to x\/y at .*the role of the given one is read/m,
  );
  const nothing = await push.run(["push", push.directory, "x/y"], { HF_TOKEN: token });
  assert.match(nothing.stderr, /^E_HUB_PUSH: .*there are no weights in/m);
  assert.equal((await push.run(["push", output])).code, 2);
});

test("what cannot be pushed is refused before the run begins", async (t) => {
  const push = await startPush(t);
  const { code, stderr, of } = await push.train(["--push_to_hub"]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /E_HUB_TOKEN.*A push to tiny-result at http.* needs a token of the hub: there is none/,
  );
  assert.deepEqual(of("run.started"), []);
  await assert.rejects(stat(push.output));

  const unreachable = { endpoint: await closedEndpoint() };
  const cases: readonly [Partial<HubSettings>, string | null, RegExp][] = [
    [{ token: "hf_other" }, null, /^E_HUB_TOKEN: .*was not accepted \(it answered 401/],
    [{ token: "hf_reader" }, null, /^E_HUB_TOKEN: .*the role of the given one is read/],
    [
      { token, offline: "HF_HUB_OFFLINE=1" },
      null,
      /^E_CONFIG_CONFLICT: .*HF_HUB_OFFLINE=1 forbids/,
    ],
    [{ token }, "a/b/c", /^E_CONFIG_INVALID: hub_model_id must be NAME or ORGANISATION\/NAME/],
    [{ token, ...unreachable }, null, /^E_HUB_UNREACHABLE: .*ECONNREFUSED/],
  ];
  for (const [settings, modelId, expected] of cases) {
    const request = { modelId, directory: push.output, isPrivate: null };
    const message = await failure(() => preparePush(request, { ...push.settings, ...settings }));
    assert.match(message, expected);
    assert.ok(!message.includes(token) && !message.includes("hf_reader"));
  }
  const request = { modelId: "lab/x", directory: push.output, isPrivate: null };
  assert.equal((await preparePush(request, { ...push.settings, token })).id, "lab/x");
  assert.deepEqual([...push.server.repositories.keys()], []);
});
