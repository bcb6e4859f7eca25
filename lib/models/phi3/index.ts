import { createDecoder } from "#lib/models/decoder/index";
import type { CreateModel } from "#lib/models/model";
import { parsePhi3Config } from "./config.js";

export const createPhi3: CreateModel = (json, task) =>
  createDecoder(parsePhi3Config(json), json, task);
