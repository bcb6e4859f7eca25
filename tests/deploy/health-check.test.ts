import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { Registry } from "prom-client";
import { CoordinatorHttp } from "#coordinator/http";
import { packageRoot } from "#lib/core/paths";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { runProgram } from "#tests/support/run-program";

const certificates = join(packageRoot, "tests", "fixtures", "tls");

test("the images' health check asks with TLS and without", async () => {
  for (const image of ["coordinator", "worker", "worker-cuda"]) {
    const path = join(packageRoot, "deploy", "docker", `${image}.Dockerfile`);
    const command = /^ {4}CMD (\["node", "-e", .*\])$/m.exec(await readFile(path, "utf8"))?.[1];
    const [program = "", ...args] = JSON.parse(String(command)) as string[];
    const check = async (port: number): Promise<number | null> => {
      const asked = args.map((argument) => argument.replaceAll("9464", String(port)));
      return (await runProgram(program, asked)).code;
    };
    for (const tls of [
      undefined,
      { cert: join(certificates, "ours.pem"), key: join(certificates, "ours.key") },
    ]) {
      const http = new CoordinatorHttp({
        ...{ host: "127.0.0.1", port: 0, registry: new Registry(), isReady: () => true, tls },
        bus: new InProcessEventBus(),
      });
      const port = await http.listen();
      assert.equal(await check(port), 0, `${image}, ${tls === undefined ? "http" : "https"}`);
      await http.close();
      assert.equal(await check(port), 1, image);
    }
  }
});
