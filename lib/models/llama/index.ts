import { createDecoder } from "#lib/models/decoder/index";
import type { CreateModel } from "#lib/models/model";
import { parseLlamaConfig } from "./config.js";

export const createLlama: CreateModel = (json, task) =>
  createDecoder(parseLlamaConfig(json), json, task);
