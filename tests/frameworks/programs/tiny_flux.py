"""A complete FluxPipeline with random weights of kilobytes, saved as users save theirs.

``python -m tests.frameworks.programs.tiny_flux FOLDER``, in the folder of the project.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from tests.frameworks.programs.models import flux_transformer

LETTERS = string.ascii_lowercase
PROMPT_TOKENS = 64


def clip_tokenizer(folder: Path) -> Any:
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "ab", "<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    merges.write_text("#version: 0.2\na b\n")
    return CLIPTokenizer(vocab=str(vocabulary), merges=str(merges), model_max_length=77)


def t5_tokenizer() -> Any:
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = [(start + letter, -3.0) for start in ("", "▁") for letter in LETTERS]
    return T5TokenizerFast(vocab=[*marks, *letters], extra_ids=0, model_max_length=PROMPT_TOKENS)


def main(folder: str) -> None:
    transformer = flux_transformer()
    vae = AutoencoderKL(
        block_out_channels=(8,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "vocab_size": 100}
    ends = {"bos_token_id": 53, "eos_token_id": 54, "pad_token_id": 54}
    clip = CLIPTextModel(CLIPTextConfig(**sizes, **ends, num_hidden_layers=1, projection_dim=32))
    t5 = T5EncoderModel(T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4))
    with TemporaryDirectory() as scratch:
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=vae,
            text_encoder=clip,
            tokenizer=clip_tokenizer(Path(scratch)),
            text_encoder_2=t5,
            tokenizer_2=t5_tokenizer(),
            transformer=transformer,
        )
        pipeline.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
