import type { Fault } from "./campaign.js";

/** A fault for a person, with the command that runs its input again. */
export function faultText({ target, seed, input, problem, stack, count }: Fault): string {
  const frames = stack
    .split("\n")
    .filter((line) => /^\s+at /.test(line))
    .slice(0, 5);
  return [
    `  FAULT, ${count} times: ${problem}`,
    ...frames,
    `  again: node scripts/fuzz.mjs --target ${target} --seed ${seed} --input ${input}`,
  ].join("\n");
}
