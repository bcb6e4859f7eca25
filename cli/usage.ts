import { generationDefaults } from "#lib/evaluation/generate/options";

const queueUsage = `
  --queue DIR         a queue in a directory, which all that use it share
  --nats-url URL      a queue in a NATS server with JetStream; --nats-credentials-file FILE  --nats-token-file FILE
                      --nats-tls-ca-file FILE  --nats-tls-cert-file FILE  --nats-tls-key-file FILE  --insecure
`;

/**
 * What `lockstep COMMAND --help` prints. The texts are apart from the commands, whose modules take
 * seconds to load: a question is answered at once.
 */
export const usages = {
  train: `Usage: lockstep train CONFIG.yaml [--key value ...]

Trains on this machine: a coordinator in this process and \`workers\` worker processes.
Every key of the configuration is a flag too; \`lockstep config --keys\` lists them.

  --json-logs   one JSON object a line instead of the display
  --verbose     stack traces of errors
`,
  "train-local": `Usage: lockstep train-local CONFIG.yaml [--key value ...]

The same run in one process, without a cluster: it ends with the same weights. It saves the finished model
and no checkpoints. Every key of the configuration is a flag too; \`lockstep config --keys\` lists them.

  --verbose     stack traces of errors
`,
  coordinator: `Usage: lockstep coordinator CONFIG.yaml [--key value ...]

Hosts a run and waits for workers that \`lockstep worker --coordinator HOST:PORT\` starts
anywhere. \`listen\` sets the address, \`metrics_port\` that of metrics and dashboard. With
\`resume_from_checkpoint: auto\` a run that is finished ends at once, with exit code 0. With \`--standby\` it waits
while another coordinator of the same output_dir lives, and goes on with the run when that ends or falls silent.
Exit code 76: another one has the run.

  --json-logs   one JSON object a line instead of the display
  --verbose     stack traces of errors
`,
  worker: `Usage: lockstep worker --coordinator HOST:PORT[,HOST:PORT ...] [options]

Takes part in a run: computes gradients on one device until the run is over. A signal makes it finish its
group, send it and leave; a second one ends it at once. Exit code 75: the run was stopped, and did not go on in time.
Of several addresses it calls the one at which the run's coordinator answers.

  --name NAME                 shown in logs and metrics
  --metrics-host HOST         default 127.0.0.1
  --metrics-port PORT         default 0 (any free port); null: no HTTP
  --use-cpu                   do not look for a GPU
  --device-threads N          compute threads, to judge how busy a CPU device is
  --reconnect-timeout-ms MS   how long the coordinator may be away, default 60000
  --return-timeout-ms MS      how long a run that was stopped may take to go on at its address, default 600000;
                              0: do not wait
  --drain-grace-ms MS         within which a worker that got a signal has left, default 25000: a group that takes
                              longer is given back
  --join-token-file FILE      --tls-ca-file FILE  --tls-cert-file FILE  --tls-key-file FILE
  --tls-server-name NAME      name in the coordinator's certificate, where it differs
  --insecure                  send the token without TLS, and listen on other hosts without TLS and token
  --http-token-file FILE      --http-tls-cert-file FILE  --http-tls-key-file FILE  of --metrics-host
  --http-without-tls          metrics beyond loopback without TLS, which something in front has
  --engine-module FILE        module that computes instead of TensorFlow
  --verbose                   stack traces of errors
`,
  submit: `Usage: lockstep submit CONFIG.yaml ... [options] (--queue DIR | --nats-url URL)

Queues a run for each file, which an agent takes in its turn; prints their ids. A configuration is checked first, and
travels with the job; paths in it are relative to this directory, which agents need too.

  --priority N        -100 to 100, default 0; higher ones come first, equal ones in order
  --after ID          only once this job is done; may be given several times, or with commas
  --set KEY=VALUE     overrides a key of the configuration; may be given several times
  --sweep KEY=A,B,C   a job for each value, and for each combination of several sweeps; their output_dirs, and their
                      places in checkpoint_store, are folders of the configuration's, named by the values
  --name NAME         shown in lists, default the file's name
  --max-tries N       a job that fails so often in a row, without a step more, is parked; default 3
  --quiet             print the ids alone
  --json              one JSON object a job
${queueUsage}`,
  list: `Usage: lockstep list [options] (--queue DIR | --nats-url URL)

Shows the jobs of a queue by turn, with their state, step, agent, and why they wait.

  --all               those that are done or cancelled too
  --json              one JSON object a job
${queueUsage}`,
  cancel: `Usage: lockstep cancel ID ... (--queue DIR | --nats-url URL)

Stops jobs for good. A running one is stopped by its agent, after its step; its checkpoints stay.

  --json              one JSON object a job
${queueUsage}`,
  pause: `Usage: lockstep pause ID ... (--queue DIR | --nats-url URL)

Stops jobs for a while. A running one is stopped by its agent, after its step and with a checkpoint. Paused jobs keep
their places; \`lockstep resume\` queues them again.

  --json              one JSON object a job
${queueUsage}`,
  resume: `Usage: lockstep resume ID ... (--queue DIR | --nats-url URL)

Queues jobs again that are paused, parked, failed or cancelled; they go on from their newest checkpoints.

  --json              one JSON object a job
${queueUsage}`,
  checkpoint: `Usage: lockstep checkpoint ID ... (--queue DIR | --nats-url URL)

Lets running jobs save a checkpoint after the step in work, and go on.

  --json              one JSON object a job
${queueUsage}`,
  agent: `Usage: lockstep agent [options] (--queue DIR | --nats-url URL) [-- options of its runs]

Takes one job of a queue after another and runs it with \`lockstep train\`. A job goes on from its newest checkpoint, and
one whose agent died is given to another. A signal stops the job in work after its step and with a checkpoint, and gives
it back; a second signal exits at once.

  --role ROLE         train: whole runs on this machine, the default; coordinator: runs for workers of other machines;
                      worker: joins the runs of such coordinators, one after another
  --name NAME         shown in lists, default this machine's name
  --jobs N            end after N jobs
  --until-empty       end where no job runs and none is left that may
  --lease-ms MS       a job is given to another agent after so long without a sign of life, default 30000
  --grace-ms MS       what a run has to finish its step and save, default 25000; then it is killed
  --work-dir DIR      output of the runs, a folder a job; default jobs/ in Lockstep's cache
${queueUsage}`,
  logs: `Usage: lockstep logs [RUN] [--follow] [--json] [--nats-url URL] [options]

Prints what a run that publishes its events to NATS (nats_url) has said, a line each with its time and who said it:
the coordinator as it logs, and the workers that it started, out of their logs. RUN and the options of NATS are those
of \`lockstep watch\`. Workers of other machines keep their logs there.

  --follow   go on until the run ends, whose outcome is the exit code then, as that of \`lockstep watch\`
  --json     one JSON object a line: time, source, text
`,
  control: `Usage: lockstep control RUN pause|resume|checkpoint|stop [--json] [--nats-url URL] [options]

Tells a run that publishes its events to NATS (nats_url) what to do, and prints what it answers. RUN and the
options of NATS are those of \`lockstep watch\`.

  pause        wait after the step in progress, with the workers, until it is told to resume
  resume       go on
  checkpoint   save a checkpoint after the step in progress; a paused run saves at once
  stop         finish the step in progress, save and end, as Ctrl-C does
`,
  watch: `Usage: lockstep watch [RUN] [--json] [--nats-url URL] [options]

Shows a run that publishes its events to NATS (nats_url), as \`lockstep train\` shows its own: from its first event
on, then those that come, until it ends. RUN is a run's id, 4 characters or more of its beginning, or its
run_name; without it the run with the latest event.

  --json                         one JSON object an event, with runId, epoch and sequence
  --nats-url URL                 nats://HOST:PORT or tls://HOST:PORT, default that of NATS_URL
  --nats-credentials-file FILE   .creds, the seed of an nkey user, or USER:PASSWORD; default that of NATS_CREDS
  --nats-token-file FILE         a token in place of credentials
  --nats-tls-ca-file FILE  --nats-tls-cert-file FILE  --nats-tls-key-file FILE
  --insecure                     send a secret without TLS

Exit code 0: the run finished, 1: it failed, 130: it was stopped; 130 after Ctrl-C too.
`,
  reducer: `Usage: lockstep reducer --listen HOST:PORT [options]

Keeps a part of a run's weights and optimizer state, adds up its gradients and makes its updates, in place of a thread
of the coordinator, whose configuration names it (\`reducers\`). It reads its part of the model or of a checkpoint by
itself: model and output_dir are under the same paths for all. It stays when the coordinator ends, for the one that
follows, and ends with the run. Exit code 75: the run was not gone on with in time.

  --listen HOST:PORT          where coordinator and workers call; port 0 is any
  --idle-timeout-ms MS        how long it waits for a coordinator to come back, default 600000; 0: for ever
  --metrics-host HOST         default 127.0.0.1
  --metrics-port PORT         default 0 (any free port); null: no HTTP
  --join-token-file FILE      --tls-ca-file FILE  --tls-cert-file FILE  --tls-key-file FILE
  --insecure                  listen on other hosts without TLS and token
  --http-token-file FILE      --http-tls-cert-file FILE  --http-tls-key-file FILE  of --metrics-host
  --http-without-tls          metrics beyond loopback without TLS, which something in front has
  --verbose                   stack traces of errors
`,
  "import-gguf": `Usage: lockstep import-gguf FILE DIR [--dtype float32|bfloat16|float16] [--overwrite]

Reads a GGUF file of the Llama architecture (Q4_0, Q4_1, Q8_0, F16, BF16 or F32 tensors)
and writes a Hugging Face model directory that transformers and Lockstep load.
`,
  "merge-adapter": `Usage: lockstep merge-adapter ADAPTER_DIR OUT_DIR [--base MODEL] [--dtype float32|bfloat16|float16]

Writes a model directory with the adapter added into the weights of its base model: W + scale B A.
ADAPTER_DIR and MODEL are directories, or ids of the Hugging Face Hub. It is \`lockstep export ADAPTER_DIR
--output-dir OUT_DIR\`.

  --base MODEL                the base model, where it is not the one that adapter_config.json names
  --dtype TYPE                of the written weights, default that of the base model's files
  --load-in-4bit              base weights are taken through 4 bits first (nf4), as QLoRA trained beside them;
                              without it an adapter of QLoRA is added into the base as it is stored
  --bnb-4bit-use-double-quant with scales in 8 bits, where training had them so
  --max-logit-difference D    see \`lockstep export --help\`
`,
  export: `Usage: lockstep export MODEL --output-dir DIR [--format safetensors|gguf] [options]

Writes a model into a directory of its own. MODEL is a directory, of a model or of an adapter, or the id
of one of the Hugging Face Hub. An adapter is merged into its base model in float32 and rounded once; the largest
difference of a logit between the two, over a few fixed prompts, is printed, and refused where it is too large.

  --format safetensors        a Hugging Face directory, the default
  --format gguf               model.gguf for llama.cpp, with tokenizer, chat template and stop tokens; of GPT-2,
                              Llama, Mistral, Qwen2, Qwen3, Gemma 2 and 3 and Phi-3
  --dtype TYPE                of the weights: float32 (f32), float16 (f16), bfloat16 (bf16), in GGUF also q8_0;
                              default that of the model's files
  --max-shard-size SIZE       weights beyond it go into several files, default 5GB
  --max-logit-difference D    part of the largest logit by which a merged adapter may differ; default 1e-4 in
                              float32 and before rounding, 0.013 in float16, 0.1 in bfloat16, 0.3 in q8_0;
                              none: do not compare
  --load-in-4bit              base weights are taken through 4 bits first (nf4), as QLoRA trained beside them;
                              without it an adapter of QLoRA is added into the base as it is stored
  --bnb-4bit-use-double-quant with scales in 8 bits, where training had them so
  --base MODEL                base model of an adapter, where it is not the one that it names
  --revision REV              branch, tag or commit of a model of the hub, default main
`,
  generate: `Usage: lockstep generate MODEL --prompt TEXT [--prompt TEXT ...] [options]

Continues texts. MODEL is a directory, of a model or of an adapter, or the id of one of the Hugging Face
Hub; an adapter's base model is found by its name. Several prompts are continued together. What is not given
comes from the model's generation_config.json.

  --chat                     the prompt is a user's message: apply the model's chat template
  --system TEXT              a system message before it (with --chat)
  --max-new-tokens N         default ${generationDefaults.maxNewTokens}
  --temperature T            sample at this temperature; 0 takes the most probable token
  --top-k K                  sample from the K most probable tokens; 0 is all
  --top-p P                  sample from the most probable tokens that reach P together
  --repetition-penalty R     above 1, tokens that are there already become less probable
  --stop TEXT                stop before this text; may be given several times
  --seed N                   of the sampling, default 0
  --base MODEL               base model of an adapter, where it is not the one that it names
  --revision REV             branch, tag or commit of a model of the hub, default main
  --bf16                     compute in bfloat16
  --json                     one JSON object a prompt
`,
  classify: `Usage: lockstep classify MODEL --text TEXT [--text TEXT ...] [options]
       lockstep classify MODEL --file FILE [options]

Says how probable a classifier finds each of its classes for texts, the most probable one first, or which
numbers a regression gives them.
MODEL is a directory, of a model or of an adapter, or the id of one of the Hugging Face Hub; an
adapter's base model is found by its name.

  --text TEXT            a text; may be given several times
  --text-pair TEXT       the second text of a pair, one for each --text
  --file FILE            texts of a .jsonl, .json, .csv, .tsv or .parquet file (the columns text or
                         sentence, or sentence1 and sentence2), or the lines of a .txt file
  --text-column NAME     column of the texts in FILE
  --pair-column NAME     column of the second texts
  --top K                the K most probable classes; default all
  --revision REV         branch, tag or commit of a model of the hub, default main
  --base MODEL           base model of an adapter, where it is not the one that it names
  --bf16                 compute in bfloat16
  --json                 one JSON object a text
`,
  push: `Usage: lockstep push DIR ID [--private]

Uploads a finished run's directory to the Hugging Face Hub: model or adapter, tokenizer and history, as
\`push_to_hub: true\` does at the end of a run. ID is NAME or ORGANISATION/NAME. The token comes from
HF_TOKEN or \`hf auth login\`.

  --private   a repository that is made for it is private
`,
  "verify-model": `Usage: lockstep verify-model DIR [--rtol 1e-4] [--case CASE_DIR] [--base MODEL] [--all]
                             [--revision REV]

Compares what Lockstep computes for a model in float32 with what transformers computed: the loss, the
logits where the attention mask is 1, the gradient of every weight, and the greedy continuation.
DIR may be the id of a model of the Hugging Face Hub, at a branch, tag or commit REV (main by default).
CASE_DIR holds case.json and expected.safetensors (DIR by default); scripts/make_case.py makes them.

  --rtol R   largest difference, relative to the tensor's norm (default 1e-4); of a gradient that is
             smaller than a thousandth of the whole gradient, relative to that thousandth
  --base M   base model of an adapter in DIR, where it is not the one that it names
  --all      print every tensor, not only the worst

Exit code 0 within R, 1 beyond it, 2 for a command line that cannot be read.
`,
  data: `Usage: lockstep data preview CONFIG.yaml [--key value ...] [options]

Shows the first rows that a run of the configuration learns: their text, which tokens are learnt, the ids of
the tokens, the places that they come from, and what was cut off; then what was read, what cannot be used,
and how long the examples are. Neither weights nor the engine are loaded, and nothing is written.

  --rows N        the first N rows instead of 3; 0 shows the figures alone
  --row FILE:LINE the rows that hold the example of this place
  --task NAME     of a run with several tasks, whose rows; default the first
  --split SIDE    train or validation; default train, and for --row either one
  --full          long texts and lists of tokens as a whole
  --json          one JSON object a row, a row that cannot be used, and for the figures

Exit code 1 where a run would refuse the data.
`,
  recipes: `Usage: lockstep recipes [copy NAME FILE]

Lists the configurations of examples/, one a method, which run as they are on two cores; or copies one into a
new file.
`,
  device: `Usage: lockstep device [--json] [--use-cpu] [--threads N]

Shows what this machine computes on: its kind, which decides the bits of a result, what bf16: auto and
fp16: auto are on it, and how fast it multiplies matrices.
`,
  config: `Usage: lockstep config CONFIG.yaml [--key value ...]
       lockstep config --keys

Prints the resolved configuration, or every key with its type, default and meaning.
Warns of keys without effect, and of a model or data that is not there.
`,
} as const;

export type CommandName = keyof typeof usages;
