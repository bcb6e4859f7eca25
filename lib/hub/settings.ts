import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { readRegularTextSync } from "#lib/core/regular-file";

export type Environment = Readonly<Record<string, string | undefined>>;

/** How the hub is talked to: the environment variables of huggingface_hub, with their defaults. */
export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** Where `models--ORGANISATION--NAME` directories lie. */
  readonly cacheDirectory: string;
  /** The variable that forbids requests, as it is set; undefined where they are allowed. */
  readonly offline: string | undefined;
  readonly token: string | undefined;
  /** Longest wait for an answer about a repository. */
  readonly answerTimeoutMs: number;
  /** Longest wait for the next bytes of a file. */
  readonly idleTimeoutMs: number;
  /** Before the second attempt of a request; doubled before each further one. */
  readonly retryPauseMs: number;
}

const defaultEndpoint = "https://huggingface.co";
const defaultTimeoutSeconds = 10;
/** A token has some 40 characters. */
const maxTokenBytes = 4096;

/**
 * @param ownToken a token that was given for this run; it comes before those of the environment
 * @throws E_CONFIG_INVALID for a variable that cannot be followed, E_HUB_TOKEN for a token that cannot be sent
 */
export function hubSettings(env: Environment = process.env, ownToken?: string): HubSettings {
  return {
    endpoint: endpointOf(env),
    cacheDirectory: hubCacheDirectory(env),
    offline: offlineReason(env),
    token: tokenOf(env, ownToken),
    answerTimeoutMs: secondsOf(env, "HF_HUB_ETAG_TIMEOUT") * 1000,
    idleTimeoutMs: secondsOf(env, "HF_HUB_DOWNLOAD_TIMEOUT") * 1000,
    retryPauseMs: 500,
  };
}

/** HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub. */
export function hubCacheDirectory(env: Environment): string {
  const own = given(env, "HF_HUB_CACHE") ?? given(env, "HUGGINGFACE_HUB_CACHE");
  return own === undefined ? join(hubHome(env), "hub") : expanded(own, env);
}

function hubHome(env: Environment): string {
  const own = given(env, "HF_HOME");
  if (own !== undefined) return expanded(own, env);
  const cache = given(env, "XDG_CACHE_HOME") ?? join(homedir(), ".cache");
  return expanded(join(cache, "huggingface"), env);
}

function endpointOf(env: Environment): string {
  const got = given(env, "HF_ENDPOINT") ?? defaultEndpoint;
  const url = URL.canParse(got) ? new URL(got) : undefined;
  // A password in it would stand in every message.
  const isUsable =
    /^https?:$/.test(url?.protocol ?? "") && `${url?.username}${url?.password}` === "";
  if (!isUsable) {
    throw new LockstepError("E_CONFIG_INVALID", {
      key: "HF_ENDPOINT",
      expected: `a URL such as ${defaultEndpoint}, without a name and a password`,
      got: url === undefined ? JSON.stringify(got) : `one of ${url.protocol}//${url.host}`,
      where: "environment",
    });
  }
  return got.replace(/\/+$/, "");
}

function offlineReason(env: Environment): string | undefined {
  const name = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].find(
    (variable) => given(env, variable) !== undefined,
  );
  if (name === undefined || !isTrue(env[name])) return undefined;
  return `${name}=${env[name]}`;
}

function tokenOf(env: Environment, own: string | undefined): string | undefined {
  const [token, from] = findToken(env, own);
  if (token === undefined) return undefined;
  // Node's own complaint about a header would show it.
  if (!/^[\x21-\x7e]+$/.test(token)) {
    const problem = `that of ${from} has characters that cannot be sent`;
    throw new LockstepError("E_HUB_TOKEN", { what: "The hub", problem });
  }
  return token;
}

function findToken(
  env: Environment,
  own: string | undefined,
): readonly [string | undefined, string] {
  const cleaned = (text: string | undefined): string | undefined => text?.trim() || undefined;
  if (cleaned(own) !== undefined) return [cleaned(own), "hub_token"];
  if (isTrue(env["HF_HUB_DISABLE_IMPLICIT_TOKEN"])) return [undefined, ""];
  for (const name of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
    const token = cleaned(env[name]);
    if (token !== undefined) return [token, name];
  }
  const path = given(env, "HF_TOKEN_PATH");
  const file = path === undefined ? join(hubHome(env), "token") : expanded(path, env);
  try {
    return [cleaned(readRegularTextSync(file, "token", maxTokenBytes)), file];
  } catch {
    // Nobody has logged in.
    return [undefined, ""];
  }
}

function secondsOf(env: Environment, name: string): number {
  const text = given(env, name);
  if (text === undefined) return defaultTimeoutSeconds;
  const seconds = Number(text);
  if (seconds > 0 && Number.isFinite(seconds)) return seconds;
  throw new LockstepError("E_CONFIG_INVALID", {
    key: name,
    expected: "a number of seconds",
    got: JSON.stringify(text),
    where: "environment",
  });
}

function given(env: Environment, name: string): string | undefined {
  const value = env[name];
  return value === undefined || value === "" ? undefined : value;
}

const isTrue = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? "");

/** Python's expanduser and expandvars. */
function expanded(path: string, env: Environment): string {
  const home = path.replace(/^~(?=\/|$)/, homedir());
  return resolve(
    home.replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, plain?: string, braced?: string) => {
      return env[plain ?? braced ?? ""] ?? whole;
    }),
  );
}
