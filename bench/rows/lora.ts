import type { Experiment } from "#bench/frame/experiment";
import type { Bars, RowPrecision } from "#bench/frame/precision";
import type { Workspace } from "#bench/frame/workspace";

const bar: Bars = { bf16: 0.8, fp32: 0.85 };

/** The model, and an adapter that peft wrote for it, from which both sides start. */
async function seeded(workspace: Workspace): Promise<readonly [model: string, adapter: string]> {
  const model = await workspace.model("gpt2");
  const adapter = await workspace.once("gpt2-lora", (path) =>
    workspace.peer("lora", model, path, "--write"),
  );
  return [model, adapter];
}

/** The frozen weights get no gradient and stay where they are: only the adapter is summed and updated. */
export const lora = (precision: RowPrecision): Experiment => ({
  name: "lora",
  rows: [
    {
      name: "lora-2x512",
      what: `LoRA step (rank 8, c_attn), GPT-2 124M, 2x512 tokens, ${precision}, against peft with a ${precision} base`,
      unit: "s",
      bar: bar[precision],
      direction: "at most",
      value: "step-2x512",
    },
  ],
  ours: async (workspace) => {
    const [model, adapter] = await seeded(workspace);
    return workspace.ours("full-step", model, "--adapter", adapter, ...options(precision));
  },
  peer: async (workspace) => {
    const [model, adapter] = await seeded(workspace);
    return workspace.peer("lora", model, adapter, ...options(precision));
  },
  tolerances: { "first-2x512": 1e-3, "last-2x512": 1e-3 },
});

const options = (precision: RowPrecision): string[] => [
  "--precision",
  precision,
  "--shapes",
  "2x512",
];
