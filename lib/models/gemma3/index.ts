import { createDecoder } from "#lib/models/decoder/index";
import type { CreateModel } from "#lib/models/model";
import { parseGemma3Config } from "./config.js";

export const createGemma3: CreateModel = (json, task) =>
  createDecoder(parseGemma3Config(json), json, task);
