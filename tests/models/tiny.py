"""Tiny public architectures with random weights."""

import json

import torch

_SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_CAPPED = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "sliding_window": 16}

# name: (class of transformers, keyword arguments of its config)
TINY = {
    "gpt2": ("GPT2LMHeadModel", _GPT2),
    "gpt-neox": ("GPTNeoXForCausalLM", {**_SIZES, "rotary_pct": 0.5}),
    "gpt-neox-serial": (
        "GPTNeoXForCausalLM",
        {**_SIZES, "rotary_pct": 0.25, "use_parallel_residual": False},
    ),
    "llama": ("LlamaForCausalLM", _GROUPED),
    "llama-tied": ("LlamaForCausalLM", {**_SIZES, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", {**_GROUPED, "sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED),
    "qwen3": ("Qwen3ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "gemma": ("GemmaForCausalLM", {**_GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", {**_GROUPED, "head_dim": 8, **_CAPPED}),
    "bert": ("BertForMaskedLM", _SIZES),
    "bert-encoder": ("BertModel", _SIZES),
}
_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def tiny_hf(name):
    """A random model of transformers; norms and biases are random too, so that none can be forgotten."""
    import transformers

    class_name, sizes = TINY[name]
    model_class = getattr(transformers, class_name)
    config = model_class.config_class(**sizes, **_IDS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class._from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.2)
    return model


def change_config(folder, **changes):
    """Overwrite fields of a folder's config.json."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
