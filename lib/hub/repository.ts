import { LockstepError } from "#lib/core/errors/index";

/** A model of the hub at a branch, a tag or a commit. */
export interface HubModel {
  readonly id: string;
  readonly revision: string;
}

export const defaultRevision = "main";

/** huggingface_hub's rule: NAME or ORGANISATION/NAME of ASCII letters, digits, `-`, `_` and `.`. */
const idPattern = /^(?:\b[\w.-]{1,96}\b\/)?\b[\w.-]{1,96}\b$/;
const revisionPattern = /^[\w.-]+(?:\/[\w.-]+)*$/;
const maxRevisionLength = 255;

export const commitPattern = /^[0-9a-f]{40}$/;

/** Whether a name can be that of a model of the hub. It then cannot walk out of a directory either. */
export function isHubId(name: string): boolean {
  return idPattern.test(name) && !/--|\.\.|\.git$/.test(name);
}

/** A branch's name is part of a path in the cache. @throws E_CONFIG_INVALID */
export function checkRevision(revision: string): void {
  const isSafe =
    revisionPattern.test(revision) &&
    revision.length <= maxRevisionLength &&
    !revision.split("/").some((part) => /^\.+$/.test(part) || part.includes(".."));
  if (isSafe) return;
  throw new LockstepError("E_CONFIG_INVALID", {
    key: "model_revision",
    expected: "a branch, a tag or a commit, such as main or refs/pr/1",
    got: JSON.stringify(revision.slice(0, 80)),
    where: "",
  });
}

/** The folder of a model in the cache, as huggingface_hub names it. */
export function repositoryFolder(id: string): string {
  return ["models", ...id.split("/")].join("--");
}
