#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: sets the CUDA engine up, checks parity, and times the step beside torch.
#
#   PEAK_TFLOPS=989 PYTHON=python3 bash bench/gpu.sh
#
# PEAK_TFLOPS is the card's dense bf16 peak (H100 989, A100 312); PYTHON has torch with CUDA and transformers.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "gpu.sh: there is no NVIDIA GPU on this machine (nvidia-smi lists none)" >&2
  exit 1
fi
python=${PYTHON:-python3}
peak=${PEAK_TFLOPS:-989}
if ! "$python" -c "import torch, transformers; assert torch.cuda.is_available()" 2>/dev/null; then
  echo "gpu.sh: $python has no torch with CUDA and transformers; name another one in PYTHON" >&2
  exit 1
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
node scripts/setup.mjs --gpu

export TF_FORCE_GPU_ALLOW_GROWTH=true TF_DETERMINISTIC_OPS=1 TF_CPP_MIN_LOG_LEVEL=2 NVIDIA_TF32_OVERRIDE=0
export XLA_FLAGS="--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
for model in gpt2 llama-gqa-untied qwen3 gemma2 phi3; do
  node bin/lockstep verify-model "tests/fixtures/models/$model"
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" bench/peers/make_model.py gpt2 "$folder/gpt2" >/dev/null

used_mib() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1; }

# measure NAME COMMAND...: a line "NAME, most MiB in use on the card, the command's JSON".
measure() {
  local name=$1 before most now json pid
  shift
  before=$(used_mib) most=$before
  "$@" >"$folder/out" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    now=$(used_mib)
    [ "$now" -gt "$most" ] && most=$now
    sleep 0.2
  done
  wait "$pid"
  json=$(tail -1 "$folder/out")
  printf '%s\t%s\t%s\n' "$name" "$((most - before))" "$json" | tee -a "$folder/lines" >&2
}

for round in 1 2 3; do
  for precision in bf16 fp32; do
    args=("$folder/gpt2" --precision "$precision" --shapes 8x1024 --repeat 10)
    measure "Lockstep, $precision" node dist/bench/full-step.js "${args[@]}"
    measure "Lockstep, $precision, xla" node dist/bench/full-step.js "${args[@]}" --xla
    measure "torch, $precision" "$python" bench/peers/step.py "${args[@]}" --device cuda
  done
done
node dist/bench/gpu-report.js "$peak" <"$folder/lines"
