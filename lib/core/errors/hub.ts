import { entry } from "./define.js";

const of = (d: { id: string; revision: string; endpoint: string }): string =>
  `${d.id} (revision ${d.revision}) at ${d.endpoint}`;

/** A model's name that may have been meant. */
const meant = ({ near }: { near?: string }): string =>
  near === undefined ? "" : ` Did you mean ${near}?`;

/** Failures with the Hugging Face Hub: models that are fetched from it, results that are pushed to it. */
export const hubErrors = {
  E_MODEL_NOT_FOUND: entry<{
    name: string;
    /** Directories that were looked at. */
    looked: readonly string[];
    /** What is known of the hub: what it answered, or why it was not asked. */
    hub: string;
    near?: string;
  }>(
    (d) =>
      `There is no model ${d.name}: looked for a directory at ${joined(d.looked)}; ${d.hub}.${meant(d)}`,
    "Give the path of a Hugging Face directory, or the id of a model of the hub (ORGANISATION/NAME), or make a directory with `lockstep import-gguf FILE DIR`; `npm start` fetches the model of the quick start.",
  ),
  E_HUB_UNREACHABLE: entry<{
    id: string;
    revision: string;
    endpoint: string;
    reason: string;
    looked: readonly string[];
    near?: string;
  }>(
    (d) =>
      `${of(d)} could not be fetched: ${d.reason}.${d.looked.length === 0 ? "" : ` It is not on this machine either: looked at ${joined(d.looked)}.`}${meant(d)}`,
    "Check the network and HF_ENDPOINT, then start again: what has arrived is kept. Without a network, copy the model here and give its path, or fill the cache elsewhere (`hf download ID`) and name it with HF_HUB_CACHE.",
    { retryable: true },
  ),
  E_HUB_ACCESS: entry<{
    id: string;
    revision: string;
    endpoint: string;
    problem: string;
    near?: string;
  }>(
    (d) => `${of(d)} may not be used: ${d.problem}.${meant(d)}`,
    "Open the model's page, accept its terms where it has some, and put a token that may use it into HF_TOKEN (or run `hf auth login`).",
  ),
  E_HUB_REVISION: entry<{ id: string; revision: string; endpoint: string }>(
    (d) => `${d.id} at ${d.endpoint} has no revision ${d.revision}.`,
    "Set model_revision to a branch, a tag or a whole commit of the model's page; main is the default.",
  ),
  E_HUB_NO_SAFETENSORS: entry<{ id: string; revision: string; endpoint: string; has: string }>(
    (d) => `${of(d)} has no weights that can be read: ${d.has}.`,
    "Pickles (.bin) are not read, because loading one can run code: convert them once with `python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('ID').save_pretrained('DIR')\"` and give DIR. A GGUF file becomes a directory with `lockstep import-gguf FILE DIR`.",
  ),
  E_HUB_RESPONSE: entry<{ id: string; revision: string; endpoint: string; problem: string }>(
    (d) =>
      `What ${d.endpoint} answered about ${d.id} (revision ${d.revision}) is not usable: ${d.problem}.`,
    "Check HF_ENDPOINT and whether a proxy stands between; if the repository itself is at fault, choose another one.",
  ),
  E_HUB_CHECKSUM: entry<{
    id: string;
    file: string;
    endpoint: string;
    expected: string;
    got: string;
  }>(
    (d) =>
      `${d.file} of ${d.id} from ${d.endpoint} is not the file that was announced: its checksum is ${d.got}, not ${d.expected}. It was thrown away.`,
    "Start again; if it happens again, the server or a proxy changes files, so do not use them.",
    { retryable: true },
  ),
  E_HUB_CACHE: entry<{ path: string; problem: string }>(
    (d) => `The hub's cache ${d.path} cannot be written: ${d.problem}.`,
    "Free some space or correct the permissions, or name another place with HF_HUB_CACHE (or HF_HOME).",
  ),
  E_HUB_TOKEN: entry<{ what: string; problem: string }>(
    (d) => `${d.what} needs a token of the hub: ${d.problem}.`,
    "Make one with the role write at ENDPOINT/settings/tokens, and put it into HF_TOKEN (or run `hf auth login`).",
  ),
  E_HUB_PUSH: entry<{ id: string; endpoint: string; directory: string; problem: string }>(
    (d) =>
      `The result is saved in ${d.directory}, but was not pushed to ${d.id} at ${d.endpoint}: ${d.problem}.`,
    "Nothing is lost and nothing has to be trained again: `lockstep push DIR ID` pushes a saved directory.",
    { retryable: true },
  ),
};

const joined = (paths: readonly string[]): string => paths.join(" and ");
