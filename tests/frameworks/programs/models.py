"""Real models with tiny random weights, each compiled as its users compile it.

``models.py CASE``: load the compile cache, call the compiled model, save. Prints JSON: a digest of every output, how
many graphs were traced and found in AOTAutograd's cache, and how long the first call took.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo.utils as dynamo_utils

import b10_transfer

FLUX = os.environ.get("B10_TEST_FLUX", "")
"""A folder that :mod:`.tiny_flux` has made."""
compile_it: Any = torch.compile
Case = Iterator[Callable[[], Any]]
"""The first thing that a case yields is its first call."""


def flux_inputs(size: int = 4) -> dict[str, Any]:
    """What FluxPipeline gives its transformer, for an image of ``size`` by ``size`` patches."""
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(1, size * size, 4, generator=generator),
        "encoder_hidden_states": torch.randn(1, 8, 32, generator=generator),
        "pooled_projections": torch.randn(1, 32, generator=generator),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.randn(size * size, 3, generator=generator),
        "txt_ids": torch.zeros(8, 3),
        "return_dict": False,
    }


def flux_transformer() -> Any:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    ).eval()


def pipeline() -> Case:
    """The transformer and the bound ``vae.decode``, as in examples/truss_flux."""
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(FLUX, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer = compile_it(pipe.transformer)
    pipe.vae.decode = compile_it(pipe.vae.decode)

    def paint() -> Any:
        images = pipe(
            "a red fox",
            height=16,
            width=16,
            num_inference_steps=2,
            guidance_scale=0.0,
            max_sequence_length=32,
            generator=torch.Generator("cpu").manual_seed(0),
            output_type="np",
        ).images
        return torch.from_numpy(images)

    yield paint


def flux() -> Case:
    model = compile_it(flux_transformer(), dynamic=False)
    yield lambda: model(**flux_inputs())


def flux_module() -> Case:
    model = flux_transformer()
    model.compile()
    yield lambda: model(**flux_inputs())


def flux_blocks() -> Case:
    model = flux_transformer()
    model.compile_repeated_blocks(fullgraph=True)
    yield lambda: model(**flux_inputs())


def flux_lora() -> Case:
    from peft import LoraConfig

    model = flux_transformer()
    model.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    model.compile()
    yield lambda: model(**flux_inputs(), joint_attention_kwargs={"scale": 0.5})


def flux_sizes() -> Case:
    model = compile_it(flux_transformer(), dynamic=False)
    yield lambda: model(**flux_inputs())
    yield lambda: model(**flux_inputs(6))


def flux_dynamic() -> Case:
    model = compile_it(flux_transformer(), dynamic=True)
    yield lambda: model(**flux_inputs())
    yield lambda: model(**flux_inputs(6))


def vae() -> Case:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(block_out_channels=(8,), layers_per_block=1, latent_channels=1, norm_num_groups=1).eval()
    decode = compile_it(model.decode)
    yield lambda: decode(torch.ones(1, 1, 4, 4), return_dict=False)


def llama_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def llama() -> Case:
    model = compile_it(llama_model())
    yield lambda: model(torch.arange(8)[None]).logits


def llama_generate() -> Case:
    model = llama_model()
    model.forward = compile_it(model.forward)
    tokens = torch.arange(8)[None]
    mask = torch.ones_like(tokens)
    options = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": "static", "pad_token_id": 0}
    yield lambda: model.generate(tokens, attention_mask=mask, **options)


def lora() -> Case:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    model = compile_it(get_peft_model(llama_model(), config))
    yield lambda: model(torch.arange(8)[None]).logits


def vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=16, patch_size=4
    )
    model = compile_it(ViTForImageClassification(config).eval())
    yield lambda: model(torch.ones(1, 3, 16, 16)).logits


def encoder() -> Case:
    torch.manual_seed(0)
    model = compile_it(torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval())
    yield lambda: model(torch.ones(1, 2, 8))


def flex() -> Case:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(causal, None, None, 128, 128, device="cpu")
    attend = compile_it(flex_attention)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 128, 16, generator=generator) for _ in range(3))
    yield lambda: attend(q, k, v, block_mask=mask)


def causal(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
    return query >= key


def int8() -> Case:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    torch.manual_seed(0)
    model: Any = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32)).eval()
    quantize_(model, Int8WeightOnlyConfig())
    model = compile_it(model)
    yield lambda: model(torch.ones(2, 32))


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        *(pipeline, flux, flux_module, flux_blocks, flux_lora, flux_sizes, flux_dynamic, vae),
        *(llama, llama_generate, lora, vit, encoder, flex, int8),
    )
}


def digest(result: Any) -> str:
    hashed = hashlib.sha256()
    for part in result if isinstance(result, tuple) else (result,):
        hashed.update(part.contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]


def main(name: str) -> dict[str, Any]:
    loaded = b10_transfer.load()
    digests, seconds = [], []
    with torch.no_grad():
        for call in CASES[name]():
            start = time.perf_counter()
            digests.append(digest(call()))
            seconds.append(time.perf_counter() - start)
    saved = b10_transfer.save()
    counters = dynamo_utils.counters
    return {
        "instant": loaded.instant,
        "loaded": loaded.status.name,
        "digests": digests,
        "first_call": seconds[0],
        "traced": counters["stats"].get("unique_graphs", 0),
        "hits": counters["aot_autograd"].get("autograd_cache_hit", 0),
        "misses": counters["aot_autograd"].get("autograd_cache_miss", 0),
        "saved": saved.status.name,
        "report": b10_transfer.cache_report().instant,
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("torch", "transformers", "diffusers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    print(json.dumps(main(sys.argv[1])))
