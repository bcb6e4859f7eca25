import { z } from "zod";

const text = z.string().min(1);

/** Keys of what is pushed to the Hugging Face Hub. */
export const hub = {
  push_to_hub: z
    .boolean()
    .default(false)
    .describe("upload the finished result to the Hugging Face Hub, once it is saved"),
  hub_model_id: text
    .nullable()
    .default(null)
    .describe("NAME or ORGANISATION/NAME to push to; null: the name of output_dir"),
  // transformers' default, every_save, pushes checkpoints too: what there is at the end is the same.
  hub_strategy: z
    .enum(["end", "every_save", "checkpoint", "all_checkpoints"])
    .default("end")
    .describe("when to push; only end is built"),
  hub_private_repo: z
    .boolean()
    .nullable()
    .default(null)
    .describe("whether a repository that a push makes is private; null: its owner's default"),
  hub_token: text
    .nullable()
    .default(null)
    .describe("token of the hub, never shown or saved; null: HF_TOKEN, or that of `hf auth login`"),
};
