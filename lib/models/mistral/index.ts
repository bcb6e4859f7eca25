import { createDecoder } from "#lib/models/decoder/index";
import type { CreateModel } from "#lib/models/model";
import { parseMistralConfig } from "./config.js";

export const createMistral: CreateModel = (json, task) =>
  createDecoder(parseMistralConfig(json), json, task);
