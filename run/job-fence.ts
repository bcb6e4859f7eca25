/** Which giving of a queued job a process works for: of two with one job, the higher epoch has it. */
export interface JobFence {
  readonly job: string;
  readonly epoch: number;
}

const variable = "LOCKSTEP_JOB";

/** For the environment of a job's run, which all of its processes have. */
export const fenceEnvironment = ({ job, epoch }: JobFence): Readonly<Record<string, string>> => ({
  [variable]: `${job} ${epoch}`,
});

/** Absent in a process that no agent started. */
export function jobFence(
  env: Readonly<Record<string, string | undefined>> = process.env,
): JobFence | undefined {
  const [, job = "", epoch = ""] = /^([a-z0-9]{8}) (\d{1,15})$/.exec(env[variable] ?? "") ?? [];
  return job === "" ? undefined : { job, epoch: Number(epoch) };
}
