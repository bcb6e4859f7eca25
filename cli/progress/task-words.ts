import type { TaskFigures } from "#lib/core/events";
import { formatFigure } from "#lib/core/format";

/** The tasks of a step: "code 2.3125 x 1", with "-" for the loss of one without a row. */
export const taskWords = (tasks: readonly TaskFigures[] = []): readonly string[] =>
  tasks.map(
    ({ name, loss, weight }) =>
      `${name} ${loss === undefined ? "-" : formatFigure(loss)} x ${formatFigure(weight, 3)}`,
  );
