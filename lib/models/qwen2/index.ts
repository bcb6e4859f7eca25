import { createDecoder } from "#lib/models/decoder/index";
import type { CreateModel } from "#lib/models/model";
import { parseQwen2Config } from "./config.js";

export const createQwen2: CreateModel = (json, task) =>
  createDecoder(parseQwen2Config(json), json, task);
