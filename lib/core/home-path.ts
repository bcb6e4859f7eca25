import { readFileSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";

/**
 * A path with a home directory in the place of a leading `~` or `~NAME`, as a shell and Python's
 * `os.path.expanduser` read it. Other paths, and variables such as $HOME in them, stay as they are.
 *
 * @param where what named the path, for messages
 * @throws E_PATH_HOME for a user that this machine does not know: Python would make a directory `~NAME`
 */
export function expandHome(path: string, where = ""): string {
  if (!path.startsWith("~")) return path;
  const slash = path.indexOf("/");
  const user = path.slice(1, slash < 0 ? undefined : slash);
  if (user !== "" && !userName.test(user)) return path;
  const rest = slash < 0 ? "" : path.slice(slash + 1);
  const home = user === "" ? ownHome() : homeOf(user);
  if (home === undefined) throw new LockstepError("E_PATH_HOME", { path, user, where });
  return join(home, rest);
}

/** What useradd takes for a name. */
const userName = /^[A-Za-z_][\w.-]*\$?$/;

/** $HOME, else what the system's list of users says. */
const ownHome = (): string => homedir() || userInfo().homedir;

function homeOf(user: string): string | undefined {
  let users: string;
  try {
    users = readFileSync("/etc/passwd", "utf8");
  } catch {
    return undefined;
  }
  const fields = users
    .split("\n")
    .map((line) => line.split(":"))
    .find(([name]) => name === user);
  return fields?.[5] === "" ? undefined : fields?.[5];
}
