import type { FastifyInstance, FastifyReply } from "fastify";
import type { HttpAccess } from "#lib/core/http-access";
import { questionOf } from "#lib/core/http-server";

/** In the page, where a problem is told. */
const problemMark = "<!--problem-->";
/** A form with a token. */
const maxFormBytes = 8 * 1024;

/** Relative, so that a proxy may serve the page under a path of its own. */
export const signInPath = "login";

/**
 * The form that takes the token and begins a session.
 *
 * @param sendPage answers with the form, in which `change` has put what is to be told
 */
export function addSignIn(
  server: FastifyInstance,
  access: HttpAccess,
  sendPage: (reply: FastifyReply, change: (page: string) => string) => Promise<FastifyReply>,
): void {
  server.addContentTypeParser(
    "application/x-www-form-urlencoded",
    { parseAs: "string", bodyLimit: maxFormBytes },
    (_, body, done) => done(null, new URLSearchParams(String(body))),
  );
  server.get(`/${signInPath}`, async (request, reply) =>
    access.isSignedIn(request) ? reply.redirect("./", 303) : sendPage(reply, (page) => page),
  );
  server.post(`/${signInPath}`, async (request, reply) => {
    const form = request.body;
    const token = form instanceof URLSearchParams ? (form.get("token") ?? "") : "";
    const refusal = access.refusalOfToken(token, questionOf(request).address);
    if (refusal === undefined) {
      return reply.header("set-cookie", access.sessionCookie()).redirect("./", 303);
    }
    const { status, retryAfterSeconds } = refusal;
    reply.code(status);
    if (retryAfterSeconds === undefined) {
      return sendPage(reply, (page) => page.replace(problemMark, "The token is wrong."));
    }
    reply.header("retry-after", retryAfterSeconds);
    const problem = `Too many wrong tokens came from here: try again in ${retryAfterSeconds} s.`;
    return sendPage(reply, (page) => page.replace(problemMark, problem));
  });
}
