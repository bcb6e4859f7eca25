import assert from "node:assert/strict";
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseFlags, printConfig, type ResolvedConfig } from "#lib/config/index";
import { pathKeys } from "#lib/config/fields";
import { isSwitchKey, isTextKey, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { isLockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";

const home = homedir();

function resolve(keys: Readonly<Record<string, unknown>>, ...args: string[]): ResolvedConfig {
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  const job = { model_name_or_path: "m", dataset: "sotu", ...keys };
  const file = parseConfigText(JSON.stringify(job), "job.yaml");
  return resolveConfig(file, flags.values, { cpuCount: 8 }).config;
}

const isUnknownHome = (error: unknown): boolean => {
  assert.ok(isLockstepError(error));
  assert.equal(error.code, "E_PATH_HOME");
  return true;
};

test("a leading ~ is the home directory, and nothing else is read into a path", () => {
  assert.equal(expandHome("~"), home);
  assert.equal(expandHome("~/runs/a b"), join(home, "runs/a b"));
  const { username, homedir: ofUser } = userInfo();
  assert.equal(expandHome(`~${username}/x`), join(ofUser, "x"));
  for (const path of ["runs/~/x", "./~x", "/~", "$HOME/x", "${HOME}/x", "a~", "", "~ /x", "~~"]) {
    assert.equal(expandHome(path), path);
  }
  assert.throws(() => expandHome("~no-such-user/x", "job.yaml:3"), isUnknownHome);
  assert.throws(
    () => expandHome("~x.jsonl"),
    /~x\.jsonl begins with the home directory of x\.jsonl/,
  );
});

test("every key that is a path has it expanded, as a list and in an entry too", () => {
  for (const key of pathKeys) {
    const sets = [
      ["tls_cert_file", "tls_key_file", "tls_ca_file"],
      ["http_tls_cert_file", "http_tls_key_file"],
      ["nats_tls_cert_file", "nats_tls_key_file"],
      ["general_eval_dataset", "general_dataset"],
    ];
    const own = sets.find((set) => set.includes(key)) ?? [];
    const others = {
      ...Object.fromEntries(own.map((each) => [each, "f"])),
      ...(key === "adapter_name_or_path" ? { use_peft: true } : {}),
      ...(key.startsWith("nats_") ? { nats_url: "tls://a:4222" } : {}),
    };
    const value = resolve({ ...others, [key]: "~/a/b" })[key];
    assert.deepEqual(value, key.endsWith("dataset") ? [`${home}/a/b`] : `${home}/a/b`, key);
  }
  const lists = resolve({
    dataset: ["~/a.jsonl", { path: "~/b.jsonl", type: "completion", field: "~/c" }, "c~"],
    eval_dataset: [{ path: "json", data_files: ["~/d.json", "e.json"], type: "completion" }],
  });
  assert.deepEqual(lists.dataset, [
    `${home}/a.jsonl`,
    { path: `${home}/b.jsonl`, type: "completion", field: "~/c" },
    "c~",
  ]);
  assert.deepEqual(lists.eval_dataset, [
    { path: "json", data_files: [`${home}/d.json`, "e.json"], type: "completion" },
  ]);
});

test("names of other tools and flags have it too; prompts and names do not", () => {
  const renamed = JSON.stringify({ base_model: "~/m", train_file: "~/a.jsonl" });
  const { config } = resolveConfig(parseConfigText(renamed, "job.yaml"), new Map(), {
    cpuCount: 8,
  });
  assert.equal(config.model_name_or_path, `${home}/m`);
  assert.deepEqual(config.dataset, [`${home}/a.jsonl`]);
  assert.equal(resolve({}, "--output_dir=~/x").output_dir, `${home}/x`);
  assert.equal(resolve({}, "--resume-from-checkpoint", "~/c").resume_from_checkpoint, `${home}/c`);
  const { sample_prompt, run_name } = resolve({ sample_prompt: "~/x", run_name: "~/y" });
  assert.deepEqual([sample_prompt, run_name], ["~/x", "~/y"]);
  assert.equal(resolve({ resume_from_checkpoint: true }).resume_from_checkpoint, true);
});

test("the configuration that is saved holds the whole path; an unknown user is refused by line", () => {
  const text = printConfig(resolve({ output_dir: "~/runs/sums" }));
  assert.ok(text.includes(`\noutput_dir: ${home}/runs/sums\n`));
  assert.throws(
    () => resolve({ output_dir: "~nobody-here/x" }),
    /\(job\.yaml:1\) begins with the home/,
  );
});
