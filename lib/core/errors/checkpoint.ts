import { entry } from "./define.js";

/** Failures of model files and checkpoints: what is read from them, and what is written. */
export const checkpointErrors = {
  E_SAFETENSORS_HEADER: entry<{ file: string; problem: string }>(
    (d) => `${d.file} is not a valid safetensors file: ${d.problem}.`,
    "Download or copy the file again; a file that was cut off in transfer is the usual cause.",
  ),
  E_SAFETENSORS_OFFSETS: entry<{ file: string; tensor: string; problem: string }>(
    (d) => `In ${d.file}, the place of tensor "${d.tensor}" is invalid: ${d.problem}.`,
    "The file is damaged or was made by a faulty writer; get it again from its source.",
  ),
  E_TENSOR_MISSING: entry<{ where: string; tensor: string; nearest?: string }>(
    (d) =>
      `${d.where} holds no tensor "${d.tensor}"${d.nearest === undefined ? "" : ` (the nearest name is "${d.nearest}")`}.`,
    "Check that config.json and the weights belong to the same model.",
  ),
  E_TENSOR_NOT_FINITE: entry<{ where: string; tensor: string; value: number }>(
    (d) => `In ${d.where}, the tensor ${d.tensor} holds ${d.value}, which is no finite number.`,
    "The file is damaged, or its training failed: get it again, or take an earlier one.",
  ),
  E_TENSOR_DTYPE: entry<{ where: string; tensor: string; dtype: string; supported: string }>(
    (d) =>
      `Tensor "${d.tensor}" in ${d.where} has type ${d.dtype}, but one of ${d.supported} is expected.`,
    "Convert the weights to float32, bfloat16 or float16.",
  ),
  E_TENSOR_SIZE: entry<{
    where: string;
    tensor: string;
    expected: number;
    actual: number;
    unit: "bytes" | "elements";
  }>(
    (d) =>
      `Tensor "${d.tensor}" of ${d.where} has ${d.expected} ${d.unit}, but ${d.actual} were given.`,
    "Check that config.json and the weights belong to the same model.",
  ),
  E_TENSOR_RANGE: entry<{ tensor: string; value: number; dtype: string }>(
    (d) => `Tensor "${d.tensor}" holds ${d.value}, which would be infinite in ${d.dtype}.`,
    "Save in float32 or bfloat16 (save_dtype, --dtype), which have the range for it.",
  ),
  E_DUPLICATE_TENSOR: entry<{ where: string; tensor: string }>(
    (d) => `${d.where} names tensor "${d.tensor}" twice.`,
    "Each tensor is stored once; remove the duplicate from what writes the file.",
  ),
  E_MODEL_DIRECTORY: entry<{ directory: string; problem: string }>(
    (d) => `${d.directory} is not a usable model directory: ${d.problem}.`,
    "Give a Hugging Face directory with config.json and model.safetensors (or its shards and model.safetensors.index.json).",
  ),
  E_WEIGHTS_INDEX: entry<{ file: string; problem: string }>(
    (d) => `The weight index ${d.file} is invalid: ${d.problem}.`,
    "Get the index and all of its shards again from the same source.",
  ),
  E_JSON_FILE: entry<{ file: string; problem: string }>(
    (d) => `${d.file} cannot be read as JSON: ${d.problem}.`,
    "Restore the file, or use an earlier checkpoint.",
  ),
  E_JOURNAL_DAMAGED: entry<{ file: string; offset: number; problem: string }>(
    (d) => `The journal ${d.file} of a run is damaged: ${d.problem} (at byte ${d.offset}).`,
    "Remove the file: the run then goes on from its last checkpoint with resume_from_checkpoint: auto.",
  ),
  E_FILE_TOO_LARGE: entry<{ file: string; actualBytes: number; limitBytes: number }>(
    (d) => `${d.file} has ${d.actualBytes} bytes; at most ${d.limitBytes} are accepted here.`,
    "Check that this is the file that was meant.",
  ),
  E_FILE_TRUNCATED: entry<{ file: string; offset: number; wantedBytes: number; gotBytes: number }>(
    (d) =>
      `${d.file} ended early: ${d.wantedBytes} bytes were expected at byte ${d.offset}, ${d.gotBytes} came.`,
    "The file was cut off or changed while it was read; get it again.",
  ),
  E_CHECKPOINT_WRITE: entry<{ file: string; problem: string }>(
    (d) => `Saving ${d.file} failed: ${d.problem}.`,
    "Check the disk, and that the directory may be written into; what was saved before is whole.",
    { retryable: true },
  ),
  E_CHECKPOINT_STORE: entry<{ place: string; problem: string }>(
    (d) => `The store refused ${d.place}: ${d.problem}.`,
    "Check checkpoint_store, s3_endpoint and s3_region, that the bucket exists, and that the credentials of the environment or of ~/.aws may list, read, write and delete there.",
    { retryable: true },
  ),
  E_SAVE_FAILED: entry<{
    what: string;
    step: number;
    seconds: number;
    reason: string;
    kept?: string | undefined;
  }>(
    (d) =>
      `${d.what} of step ${d.step} was not saved, in ${d.seconds} s of trying: ${d.reason} ${d.kept === undefined ? "This process saved nothing before." : `Kept is ${d.kept}.`}`,
    "Make room or mend what output_dir is on, or the store of checkpoint_store, and start again with resume_from_checkpoint: auto, which goes on from the newest whole checkpoint; save_retry_ms says how long a save is tried.",
    { retryable: true },
  ),
  E_CHECKPOINT_DAMAGED: entry<{ directory: string; file: string; problem: string }>(
    (d) => `The checkpoint ${d.directory} is damaged: ${d.file} ${d.problem}.`,
    "Resume from an earlier checkpoint of the same run: resume_from_checkpoint: true takes the newest that is whole.",
  ),
  E_ADAPTER_CONFIG: entry<{ file: string; key: string; expected: string; got: string }>(
    (d) => `In ${d.file}, ${d.key} has to be ${d.expected}, not ${d.got}.`,
    "Correct the adapter's configuration, or take it again from where it came.",
  ),
  E_ADAPTER_UNSUPPORTED: entry<{ file: string; what: string }>(
    (d) => `${d.file} asks for ${d.what}, which is not supported.`,
    "Use a LoRA or DoRA adapter. What peft can merge into its base model (merge_and_unload) is a model afterwards.",
  ),
  E_ADAPTER_UNMERGEABLE: entry<{ directory: string; what: string }>(
    (d) =>
      `${d.directory} holds ${d.what}, which no weight of the base model can hold: they are neither merged nor exported with it.`,
    "Use the directory as it is: it has the form in which its library loads it (peft or AdapterHub's), and `lockstep generate`, `classify` and `verify-model` take it.",
  ),
  E_ADAPTER_TARGET: entry<{ problem: string }>(
    (d) => `The adapter has nothing to adapt: ${d.problem}.`,
    'Set target_modules (in a run: lora_target_modules) to names of linear modules of the model, or to "all-linear".',
  ),
  E_ADAPTER_MODULE: entry<{ key: string; module: string; problem: string }>(
    (d) => `${d.key} names ${d.module}, ${d.problem}.`,
    "Correct the name: lora_target_modules takes linear modules of the model, lora_modules_to_save any module that has weights, by whole names or their last parts.",
  ),
  E_ADAPTER_TENSOR: entry<{ directory: string; tensor: string; problem: string }>(
    (d) => `In the adapter ${d.directory}, ${d.tensor} ${d.problem}.`,
    "Check that the adapter's configuration, its weights and the base model belong together.",
  ),
  E_ADAPTER_BASE: entry<{ adapter: string; problem: string }>(
    (d) => `The adapter ${d.adapter} cannot be used: ${d.problem}.`,
    "Name the model that the adapter was trained on: by --base MODEL, in a run by model_name_or_path, or in its adapter_config.json (base_model_name_or_path, or what AdapterHub has in its place).",
  ),
  E_MODEL_IS_ADAPTER: entry<{ directory: string; what: string; way: string }>(
    (d) =>
      `model_name_or_path ${d.directory} is an adapter (${d.what}), and training starts from a whole model. ${d.way}`,
    "Set model_name_or_path to what a merge wrote, or to the adapter's base model. LoRA and DoRA are trained further with adapter_name_or_path beside the base model; a run that was stopped goes on with resume_from_checkpoint and its own base model.",
  ),
  E_CHECKPOINT_STORE_IN_USE: entry<{ place: string; run: string; by: string }>(
    (d) => `The prefix ${d.place} is that of ${d.run}, which lives: ${d.by}.`,
    "Give each run a checkpoint_store of its own, or wait until the other one has ended. overwrite_output_dir: true takes the prefix away from it.",
  ),
  E_CHECKPOINT_STORE_LOST: entry<{ place: string; by: string }>(
    (d) =>
      `The prefix ${d.place} belongs to another process since: ${d.by}. This run makes nothing visible there any more.`,
    "Nothing needs to be done where the other process goes on from this run's checkpoints. Otherwise give each run a checkpoint_store of its own.",
  ),
  E_OUTPUT_DIR_IN_USE: entry<{ directory: string; by: string }>(
    (d) => `Another run writes into ${d.directory}: ${d.by}.`,
    "Give each run an output_dir of its own, or wait until the other one has ended.",
  ),
  E_OUTPUT_DIR_LOST: entry<{ directory: string; by: string }>(
    (d) =>
      `This run gave no sign of life in ${d.directory} for a while, and the directory belongs to another one: ${d.by}. Nothing more is written into it.`,
    "Nothing needs to be done where the other run goes on from this one's checkpoints. If a process was not stopped or suspended, look at the file system's latency.",
  ),
  E_OUTPUT_DIR_OTHER_RUN: entry<{ directory: string; found: string }>(
    (d) => `output_dir ${d.directory} holds another run's result: ${d.found}.`,
    "Give another output_dir; or set overwrite_output_dir: true, which removes what Lockstep wrote there and starts clean; or go on with that run by its own settings and resume_from_checkpoint: true.",
  ),
  E_RESUME_MISMATCH: entry<{ directory: string; differences: string }>(
    (d) => `${d.directory} is not a checkpoint of this run: ${d.differences}.`,
    "Set back what differs, or start anew: without resume_from_checkpoint, in another output_dir or with overwrite_output_dir: true. More steps or epochs, logging, saving, the number of workers and the places of files may change.",
  ),
  E_RESUME_PAST_END: entry<{ directory: string; step: number; totalSteps: number }>(
    (d) =>
      `The checkpoint ${d.directory} has made ${d.step} steps, and the run is to end after ${d.totalSteps}.`,
    "Set max_steps or num_train_epochs to more, or take an earlier checkpoint by its directory.",
  ),
  E_DIRECTORY_NOT_EMPTY: entry<{ directory: string }>(
    (d) => `The output directory ${d.directory} is not empty.`,
    "Choose another directory, or empty this one; import-gguf replaces a model's files in it with --overwrite.",
  ),
  E_EXPORT_DIFFERENCE: entry<{ difference: number; logit: number; bound: number; dtype: string }>(
    (d) =>
      Number.isFinite(d.difference) && Number.isFinite(d.logit)
        ? `The merged model in ${d.dtype} is not the adapter's: its logits differ by up to ${d.difference.toPrecision(3)}, where the largest one is ${d.logit.toPrecision(3)}; a part of ${d.bound} is allowed.`
        : `The merged model in ${d.dtype} cannot be compared with the adapter: logits of one of them are not finite (NaN or infinity).`,
    "Export in a wider type (--dtype float32), or allow more with --max-logit-difference. A difference in float32 is one of the merge, before anything is rounded: the adapter's numbers are then far larger than those of its base, or not finite.",
  ),
  E_GGUF_EXPORT: entry<{ model: string; problem: string }>(
    (d) => `${d.model} cannot be written as GGUF: ${d.problem}.`,
    "Export it as safetensors (--format safetensors), which holds every model.",
  ),
  E_GGUF_FORMAT: entry<{ file: string; offset: number; problem: string }>(
    (d) => `${d.file} is not a valid GGUF file: ${d.problem} (at byte ${d.offset}).`,
    "Download or copy the file again; a file that was cut off in transfer is the usual cause.",
  ),
  E_GGUF_METADATA: entry<{ file: string; key: string; problem: string }>(
    (d) => `In ${d.file}, the metadata key "${d.key}" ${d.problem}.`,
    "Convert the model again with a current converter, or start from its Hugging Face directory.",
  ),
  E_GGUF_ARCHITECTURE: entry<{ file: string; architecture: string; problem: string }>(
    (d) => `${d.file} holds a "${d.architecture}" model that cannot be imported: ${d.problem}.`,
    'Import a GGUF file of architecture "llama", or start from the model\'s Hugging Face directory.',
  ),
  E_GGUF_TENSOR: entry<{ file: string; tensor: string; problem: string }>(
    (d) => `In ${d.file}, tensor "${d.tensor}" ${d.problem}.`,
    "The file is damaged or belongs to another kind of model; get it again from its source.",
  ),
  E_GGUF_TENSOR_TYPE: entry<{ file: string; tensor: string; type: string; supported: string }>(
    (d) =>
      `In ${d.file}, tensor "${d.tensor}" is stored as ${d.type}; only ${d.supported} can be read.`,
    "Choose a file of one of these types (F16, Q8_0 and Q4_0 exist for most models).",
  ),
  E_GGUF_TOKENIZER: entry<{ file: string; problem: string }>(
    (d) => `The tokenizer in ${d.file} cannot be imported: ${d.problem}.`,
    "Use a model with a byte-level BPE or SentencePiece tokenizer, or start from its Hugging Face directory.",
  ),
};
