"""Writes tiny random models of many architectures and options, each with its case for verify-model.

Usage: python make_random_model.py OUTPUT_DIR [NAME ...]   (needs torch, transformers, safetensors)

OUTPUT_DIR/NAME becomes a Hugging Face model directory with case.json and expected.safetensors (see
scripts/make_case.py). `--list` prints the names. Every parameter is random, biases and norms too, so
that a forgotten one shows.
"""

import json
import sys
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from make_case import make_case  # noqa: E402

SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
DECODER = {
    **SMALL,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLASSIFIER = {"pad_token_id": 0, "num_labels": 5}
ENCODER = {
    **SMALL,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 4,
}
ROBERTA = {**ENCODER, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
DISTIL = {
    "vocab_size": 96,
    "dim": 32,
    "hidden_dim": 40,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
    "num_labels": 4,
}
GPT2 = {
    "vocab_size": 96,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PHI3 = {**DECODER, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
GEMMA = {**DECODER, "head_dim": 16, "pad_token_id": 0, "num_hidden_layers": 3, "sliding_window": 8}
GEMMA2 = {**GEMMA, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 5.0}

LONG = {"max_position_embeddings": 512}


def rope(kind: str, **more) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def causal(config, options: dict, **more):
    return config, {**options, **more}, "CausalLM"


def classifier(config, options: dict, **more):
    return config, {**options, **more}, "SequenceClassification"


MODELS = {
    "gpt2": causal(hf.GPT2Config, GPT2),
    "gpt2-inner-relu": causal(hf.GPT2Config, GPT2, n_inner=80, activation_function="relu"),
    "gpt2-layer-scale": causal(hf.GPT2Config, GPT2, scale_attn_by_inverse_layer_idx=True),
    "gpt2-unscaled-untied": causal(
        hf.GPT2Config, GPT2, scale_attn_weights=False, tie_word_embeddings=False
    ),
    "gpt2-without-prefix": causal(hf.GPT2Config, GPT2),
    "gpt2-seqcls": classifier(hf.GPT2Config, GPT2, **CLASSIFIER),
    "llama-mha-tied": causal(
        hf.LlamaConfig, DECODER, num_key_value_heads=4, tie_word_embeddings=True
    ),
    "llama-bias-headdim": causal(
        hf.LlamaConfig, DECODER, attention_bias=True, mlp_bias=True, head_dim=16
    ),
    "llama-linear": causal(hf.LlamaConfig, DECODER, **rope("linear", factor=4.0)),
    "llama-linear-v4": causal(hf.LlamaConfig, DECODER, **rope("linear", factor=4.0)),
    # Shorter than the case: the frequencies depend on its length.
    "llama-dynamic": causal(
        hf.LlamaConfig, {**DECODER, "max_position_embeddings": 12}, **rope("dynamic", factor=2.0)
    ),
    "llama-llama3": causal(
        hf.LlamaConfig,
        DECODER,
        **rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "llama-llama3-v4": causal(
        hf.LlamaConfig,
        DECODER,
        **rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "llama-yarn": causal(
        hf.LlamaConfig,
        DECODER,
        **rope("yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "llama-yarn-options": causal(
        hf.LlamaConfig,
        DECODER,
        head_dim=16,
        **rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=16,
            attention_factor=1.25,
            beta_fast=16.0,
            beta_slow=2.0,
        ),
    ),
    "llama-seqcls": classifier(hf.LlamaConfig, DECODER, **CLASSIFIER),
    "llama-seqcls-regression": classifier(hf.LlamaConfig, DECODER, pad_token_id=0, num_labels=1),
    "mistral-window": causal(hf.MistralConfig, DECODER, sliding_window=5, head_dim=16),
    "mistral-no-window": causal(hf.MistralConfig, DECODER, sliding_window=None),
    "mistral-seqcls": classifier(hf.MistralConfig, DECODER, sliding_window=8, **CLASSIFIER),
    "qwen2-untied": causal(hf.Qwen2Config, DECODER, tie_word_embeddings=False),
    "qwen2-window": causal(
        hf.Qwen2Config, DECODER, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen2-seqcls": classifier(hf.Qwen2Config, DECODER, **CLASSIFIER),
    "qwen3": causal(hf.Qwen3Config, DECODER, head_dim=16, tie_word_embeddings=False),
    "qwen3-bias-window": causal(
        hf.Qwen3Config,
        DECODER,
        head_dim=16,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=6,
        max_window_layers=1,
    ),
    "qwen3-seqcls": classifier(hf.Qwen3Config, DECODER, head_dim=16, **CLASSIFIER),
    "gemma2": causal(hf.Gemma2Config, GEMMA2, final_logit_softcapping=3.0),
    "gemma2-no-softcap": causal(
        hf.Gemma2Config,
        {**GEMMA2, "attn_logit_softcapping": None},
        final_logit_softcapping=None,
    ),
    "gemma2-seqcls": classifier(hf.Gemma2Config, GEMMA2, num_labels=5),
    "gemma3": causal(
        hf.Gemma3TextConfig,
        GEMMA,
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    "gemma3-linear-softcap": causal(
        hf.Gemma3TextConfig,
        GEMMA,
        query_pre_attn_scalar=24,
        final_logit_softcapping=3.0,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 100000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "gemma3-seqcls": classifier(hf.Gemma3TextConfig, GEMMA, num_labels=5),
    "phi3": causal(hf.Phi3Config, PHI3),
    "phi3-partial-window": causal(
        hf.Phi3Config,
        {**PHI3, "hidden_size": 64, "sliding_window": 6},
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
        },
    ),
    # Longer than the original length: the case uses the long factors.
    "phi3-longrope": causal(
        hf.Phi3Config,
        PHI3,
        original_max_position_embeddings=16,
        **rope(
            "longrope",
            original_max_position_embeddings=16,
            short_factor=[1.0, 1.1, 1.2, 1.3],
            long_factor=[1.5, 2.0, 3.0, 4.0],
        ),
    ),
    "phi3-seqcls": classifier(hf.Phi3Config, PHI3, **CLASSIFIER),
    "bert-seqcls": classifier(hf.BertConfig, ENCODER),
    "bert-seqcls-multilabel": classifier(
        hf.BertConfig, ENCODER, problem_type="multi_label_classification", hidden_act="gelu_new"
    ),
    "bert-seqcls-regression": classifier(hf.BertConfig, {**ENCODER, "num_labels": 1}),
    "roberta-seqcls": classifier(hf.RobertaConfig, ROBERTA),
    "roberta-seqcls-regression": classifier(
        hf.RobertaConfig, {**ROBERTA, "num_labels": 2}, problem_type="regression"
    ),
    "distilbert-seqcls": classifier(hf.DistilBertConfig, DISTIL),
    "distilbert-seqcls-multilabel": classifier(
        hf.DistilBertConfig, DISTIL, activation="relu", problem_type="multi_label_classification"
    ),
    # Several blocks of queries, and windows that end inside one.
    "gpt2-long": causal(hf.GPT2Config, GPT2, n_positions=512),
    "llama-dynamic-long": causal(
        hf.LlamaConfig, {**DECODER, "max_position_embeddings": 256}, **rope("dynamic", factor=4.0)
    ),
    "mistral-window-long": causal(hf.MistralConfig, {**DECODER, **LONG}, sliding_window=100),
    "gemma2-long": causal(
        hf.Gemma2Config, {**GEMMA2, **LONG, "sliding_window": 130}, final_logit_softcapping=3.0
    ),
    "qwen3-seqcls-long": classifier(
        hf.Qwen3Config,
        {**DECODER, **LONG},
        head_dim=16,
        use_sliding_window=True,
        sliding_window=50,
        max_window_layers=1,
        **CLASSIFIER,
    ),
    "bert-seqcls-long": classifier(hf.BertConfig, {**ENCODER, **LONG}),
}


def randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2:
                parameter.copy_(0.12 * noise)
            else:
                parameter.add_(0.15 * noise)


def as_version_4(directory: Path) -> None:
    """Writes the rotary options the way transformers 4 did."""
    file = directory / "config.json"
    config = json.loads(file.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def without_prefix(directory: Path) -> None:
    """The names of the first GPT-2 checkpoints: no `transformer.`."""
    file = directory / "model.safetensors"
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def make(name: str, directory: Path) -> None:
    config_class, options, head = MODELS[name]
    config = config_class(**options)
    mapping = (
        hf.MODEL_FOR_CAUSAL_LM_MAPPING
        if head == "CausalLM"
        else hf.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    )
    model = mapping[config_class](config)
    randomise(model, seed=1 + list(MODELS).index(name))
    model.tie_weights()
    model.save_pretrained(directory)
    if name.endswith("-v4"):
        as_version_4(directory)
    if name.endswith("-without-prefix"):
        without_prefix(directory)
    # Past windows and original lengths, within the positions.
    length = 301 if name.endswith("-long") else 29 if name.endswith("-longrope") else 21
    make_case(directory, directory, length=length)


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        print("\n".join(MODELS))
        return
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    output = Path(sys.argv[1])
    unknown = [name for name in sys.argv[2:] if name not in MODELS]
    if unknown:
        sys.exit(f"no such models: {', '.join(unknown)}; --list names them")
    hf.utils.logging.disable_progress_bar()
    for name in sys.argv[2:] or MODELS:
        make(name, output / name)
        print(name, flush=True)


if __name__ == "__main__":
    main()
