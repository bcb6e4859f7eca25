import { readdirSync } from "node:fs";

/** A step that counts: who made it, by the job's epoch and its process. */
export interface KeptStep {
  readonly step: number;
  readonly epoch: number;
  readonly pid: number;
}

export const stepFile = ({ step, epoch, pid }: KeptStep): string => `step-${step}.${epoch}.${pid}`;

/** By step, and of one step by epoch. */
export const keptSteps = (directory: string): readonly KeptStep[] =>
  readdirSync(directory)
    .flatMap((name) => {
      const [, step, epoch, pid] = /^step-(\d+)\.(\d+)\.(\d+)$/.exec(name) ?? [];
      return pid === undefined
        ? []
        : [{ step: Number(step), epoch: Number(epoch), pid: Number(pid) }];
    })
    .sort((a, b) => a.step - b.step || a.epoch - b.epoch);
