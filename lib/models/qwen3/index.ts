import { createDecoder } from "#lib/models/decoder/index";
import type { CreateModel } from "#lib/models/model";
import { parseQwen3Config } from "./config.js";

export const createQwen3: CreateModel = (json, task) =>
  createDecoder(parseQwen3Config(json), json, task);
