import { z } from "zod";

/** Not of a task: an evaluation of general rows has `eval_general_loss`. */
export const reservedTaskName = "general";

/** No names of tasks: `eval_train_loss` is what the run's validation loss is compared with. */
export const reservedTaskNames: readonly string[] = [reservedTaskName, "train"];

const optional = (schema: z.core.$ZodType): z.ZodType =>
  (schema instanceof z.ZodDefault
    ? (schema.unwrap() as z.ZodType)
    : (schema as z.ZodType)
  ).optional();

/**
 * Keys of runs with several tasks, and of general rows among those that are learnt.
 *
 * @param own keys of the run that a task may have for itself
 */
export const taskFields = <Own extends z.ZodRawShape>(own: Own) => ({
  tasks: z
    .record(
      z.string().regex(/^[A-Za-z][A-Za-z0-9_-]*$/, "a name of letters, digits, - and _"),
      z.strictObject({
        weight: z.number().gt(0).optional(),
        share: z.number().gt(0).optional(),
        ...(Object.fromEntries(
          Object.entries(own).map(([key, schema]) => [key, optional(schema)]),
        ) as { [Key in keyof Own]: z.ZodOptional<z.ZodType<z.output<Own[Key]>>> }),
      }),
    )
    .nullable()
    .default(null)
    .describe(
      `tasks that entries of dataset name, each with its weight in the loss (1), its share of the rows of a step, and ${Object.keys(own).join(", ")} of its own`,
    ),
  task_weighting: z
    .enum(["fixed", "uncertainty"])
    .default("fixed")
    .describe(
      "weights of the tasks' losses: those under tasks, or learnt by the tasks' uncertainty (Kendall 2018)",
    ),
  replay_probability: z
    .number()
    .gt(0)
    .lt(1)
    .nullable()
    .default(null)
    .describe(
      "share of the rows of a step that are of general_dataset; they count in one mean with the others, or, with replay_weight, in one of their own",
    ),
  replay_weight: z
    .number()
    .gt(0)
    .nullable()
    .default(null)
    .describe(
      "weight of the loss of the step's general rows, a mean of their own beside that of the others; without replay_probability a tenth of the rows are general",
    ),
});
