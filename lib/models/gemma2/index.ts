import { createDecoder } from "#lib/models/decoder/index";
import type { CreateModel } from "#lib/models/model";
import { parseGemma2Config } from "./config.js";

export const createGemma2: CreateModel = (json, task) =>
  createDecoder(parseGemma2Config(json), json, task);
