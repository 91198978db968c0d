"""Models that need no download: a small configuration, and a tokenizer trained here on this module's own words.

vLLM fills in the weights itself (``--load-format dummy``), the same ones at every start.
"""

from __future__ import annotations

import json
from pathlib import Path

_END = "<|end|>"


def make_model(folder: Path, *, layers: int = 4, hidden: int = 256) -> Path:
    """Write a Llama of the given size to ``folder``, which must not exist, and return it.

    ``hidden`` is a multiple of 128: heads have 64 dimensions, and two of them share a key.
    """
    folder.mkdir(parents=True)
    heads = hidden // 64
    vocabulary = _write_tokenizer(folder)
    _write(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "head_dim": 64,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    )
    return folder


def _write_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer, which knows every text; returns how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([Path(__file__).read_text()], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _END, "eos_token": _END, "pad_token": _END},
    )
    return int(tokenizer.get_vocab_size())


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1))
