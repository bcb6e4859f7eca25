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
for model in gpt2 llama-gqa-untied qwen3 gemma2 phi3; do
  node bin/lockstep verify-model "tests/fixtures/models/$model"
done

lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
for precision in bf16 fp32; do
  args=(--precision "$precision" --rows 8 --tokens 1024 --repeat 10)
  for round in 1 2 3; do
    for jit in off on; do
      flags=""
      # TensorFlow clusters the step's ops by itself; determinism costs autotuning.
      [ "$jit" = on ] && flags="--tf_xla_auto_jit=2"
      json=$(TF_XLA_FLAGS=$flags XLA_FLAGS="--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0" \
        node dist/bench/step.js --model gpt2 "${args[@]}" | tail -1)
      printf 'Lockstep %s, XLA %s, run %s\t%s\n' "$precision" "$jit" "$round" "$json" >>"$lines"
    done
    json=$("$python" bench/peers/gpu_step.py "${args[@]}" | tail -1)
    printf 'torch %s, run %s\t%s\n' "$precision" "$round" "$json" >>"$lines"
  done
done
node dist/bench/gpu-report.js "$peak" <"$lines"
cut -f2 "$lines"
echo "fp16: left out, the engine computes in bf16 and fp32 only"
