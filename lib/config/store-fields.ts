import { z } from "zod";

const text = z.string().min(1);

/** Keys of where checkpoints are kept. */
export const store = {
  checkpoint_store: text
    .regex(/^s3:\/\/[A-Za-z0-9][A-Za-z0-9._-]{2,254}(\/.*)?$/, "s3://BUCKET or s3://BUCKET/PREFIX")
    .nullable()
    .default(null)
    .describe(
      "s3://BUCKET/PREFIX of S3-compatible storage for checkpoints and, beside output_dir, the result; null: checkpoints are in output_dir",
    ),
  s3_endpoint: text
    .nullable()
    .default(null)
    .describe("URL of a store that is not AWS's; null: that of the environment, or AWS's"),
  s3_region: text
    .nullable()
    .default(null)
    .describe("region of the bucket; null: that of the environment or of ~/.aws"),
};
