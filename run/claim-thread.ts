import { parentPort, workerData } from "node:worker_threads";
import { beatEvery, type HeartbeatOptions } from "./claim-heartbeat.js";

beatEvery(workerData as HeartbeatOptions, () => parentPort?.postMessage("lost"));
