import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { isLoopback } from "./address.js";
import { WrongTokens } from "./wrong-tokens.js";

/** How long a browser stays signed in, seconds; a program that ends signs it out before. */
const sessionSeconds = 24 * 60 * 60;

/** What of a request decides whether it is answered. */
export interface HttpQuestion {
  readonly method: string;
  /** Of the server's own routes, the one that answers: how a path is spelt is for the router alone to judge. */
  readonly route: string | undefined;
  readonly query: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** Of the other end of the connection. */
  readonly address: string;
}

/** Why a request is not answered. */
interface HttpRefusal {
  readonly status: 400 | 401 | 403 | 421 | 429;
  readonly error: string;
  /** Seconds after which another try makes sense. */
  readonly retryAfterSeconds?: number;
}

interface HttpAccessOptions {
  /** Where the server listens. */
  readonly host: string;
  readonly token: string | undefined;
  /** Paths that need no token. */
  readonly openPaths: ReadonlySet<string>;
  /** Whether browsers reach the server by TLS, so that the cookie may be kept to it. */
  readonly isSecure: boolean;
}

/** Who may ask a server of ours what: by token, or by a session that a token began. */
export class HttpAccess {
  readonly #options: HttpAccessOptions;
  readonly #token: Buffer | undefined;
  /** Of this process: no session outlives it. */
  readonly #sessionKey = randomBytes(32);
  /** Cookies are of a host, whatever its port, and of its proxies' paths: each process has a name of its own. */
  readonly #cookieName = `lockstep-${randomBytes(4).toString("hex")}`;
  readonly #wrongTokens = new WrongTokens(() => performance.now());

  constructor(options: HttpAccessOptions) {
    this.#options = options;
    this.#token = options.token === undefined ? undefined : digest(options.token);
  }

  /** @returns undefined where the request may be answered */
  refusal(question: HttpQuestion): HttpRefusal | undefined {
    const misled = this.#misled(question);
    if (misled !== undefined) return misled;
    if ("token" in question.query) {
      const error =
        "a token is not taken from an address, which browsers and proxies write down; programs send it in the header authorization: Bearer, people sign in at /login";
      return { status: 400, error };
    }
    if (this.#token === undefined || this.#isOpen(question)) return undefined;
    const bearer = /^Bearer +(.+)$/i.exec(text(question.headers["authorization"]))?.[1];
    if (bearer !== undefined) return this.refusalOfToken(bearer, question.address);
    if (this.isSignedIn(question)) return undefined;
    return { status: 401, error: "a token is required" };
  }

  /** Whether a request that is answered shows that its connection may be here. */
  isProof(question: HttpQuestion): boolean {
    return this.#token === undefined || !this.#isOpen(question);
  }

  #isOpen({ route }: HttpQuestion): boolean {
    return route !== undefined && this.#options.openPaths.has(route);
  }

  /** Judges a token, and counts it against the address where it is wrong. */
  refusalOfToken(given: string, address: string): HttpRefusal | undefined {
    const retryAfterSeconds = this.#wrongTokens.waitSeconds(address);
    if (retryAfterSeconds > 0) {
      const error = `too many wrong tokens came from ${address}`;
      return { status: 429, error, retryAfterSeconds };
    }
    if (this.#token !== undefined && timingSafeEqual(digest(given.trim()), this.#token)) {
      return undefined;
    }
    this.#wrongTokens.count(address);
    return { status: 401, error: "the token is wrong" };
  }

  /** Whether the request has the cookie of a session; browsers send those of all paths and domains of a name. */
  isSignedIn({ headers }: Pick<HttpQuestion, "headers">): boolean {
    const prefix = `${this.#cookieName}=`;
    return text(headers["cookie"])
      .split(/; */)
      .some((cookie) => cookie.startsWith(prefix) && this.#isSession(cookie.slice(prefix.length)));
  }

  #isSession(session: string): boolean {
    const [expiry = "", seal = ""] = session.split(".");
    if (!timingSafeEqual(digest(seal), digest(this.#seal(expiry)))) return false;
    return Number(expiry) * 1000 > Date.now();
  }

  /** A new session as the header set-cookie. The cookie is not the token, and nothing can be had from it. */
  sessionCookie(): string {
    const expiry = String(Math.floor(Date.now() / 1000) + sessionSeconds);
    const secure = this.#options.isSecure ? "; Secure" : "";
    return `${this.#cookieName}=${expiry}.${this.#seal(expiry)}; Max-Age=${sessionSeconds}; Path=/; HttpOnly; SameSite=Strict${secure}`;
  }

  /** Requests that another site made a browser send. */
  #misled({ method, headers }: HttpQuestion): HttpRefusal | undefined {
    const host = text(headers["host"]);
    const { host: ownHost } = this.#options;
    const asked = hostnameOf(host);
    // A name of another site that resolves to loopback has that site's scripts read what comes back.
    if (isLoopback(ownHost) && !isLoopback(asked) && asked !== ownHost.toLowerCase()) {
      return {
        status: 421,
        error: "this server is reached by localhost, 127.0.0.1 or [::1] alone",
      };
    }
    if (method === "GET" || method === "HEAD" || isOfOwnPage(headers, host)) return undefined;
    return { status: 403, error: "the request comes from a page of another site" };
  }

  #seal(expiry: string): string {
    return createHmac("sha256", this.#sessionKey).update(expiry).digest("base64url");
  }
}

const digest = (given: string): Buffer => createHash("sha256").update(given).digest();

const text = (header: string | readonly string[] | undefined): string =>
  typeof header === "string" ? header : (header?.join(", ") ?? "");

/** Whether a page of this server made the request, or no page at all. */
function isOfOwnPage(headers: HttpQuestion["headers"], host: string): boolean {
  // Scripts cannot set it, and a proxy that changes the host passes it on.
  const site = headers["sec-fetch-site"];
  if (site !== undefined) return site === "same-origin" || site === "none";
  const origin = headers["origin"];
  if (origin === undefined) return true;
  return URL.canParse(text(origin)) && new URL(text(origin)).host === host.toLowerCase();
}

/** The host of a Host header without its port; empty where it is none. */
function hostnameOf(host: string): string {
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : "";
}
