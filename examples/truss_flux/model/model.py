"""FLUX.1 [schnell] on one GPU. Tuning its kernels takes minutes, and is done once for all replicas.

diffusers is imported late, so that this file can be checked on a machine without it.
"""

from __future__ import annotations

import base64
import logging
import time
from io import BytesIO
from typing import Any

import torch

from b10_transfer import load_compile_cache, save_compile_cache

logger = logging.getLogger(__name__)

WEIGHTS = "/models/flux-schnell"
"""The folder where config.yaml mounts them."""
SIZES = ((1024, 1024), (1344, 768), (768, 1344))
"""Width and height of the images that are served. No other shape is compiled."""
STEPS = 4
PROMPT_TOKENS = 256
"""The maximum of FLUX.1 [schnell]. All prompts are padded to it, so they all have one shape."""
MODE = "max-autotune-no-cudagraphs"
DEVICE, DTYPE = "cuda", torch.bfloat16


class Model:
    """The model that Truss serves."""

    def __init__(self, **kwargs: Any) -> None:
        self._pipe: Any = None

    def load(self) -> None:
        from diffusers import FluxPipeline

        self._pipe = FluxPipeline.from_pretrained(WEIGHTS, torch_dtype=DTYPE).to(DEVICE)
        self._pipe.set_progress_bar_config(disable=True)

        # Load before the first compilation, and compile with any result. After an ERROR (the log says why) this start
        # is as slow as without a cache. Without torch.compile, every image would be slow.
        loaded = load_compile_cache()
        logger.info("compile cache: %s", loaded.name)

        # dynamic=False: each size gets its own kernels, in any order of sizes. So all replicas compile the same kernels
        # and hit the cache.
        self._pipe.transformer.compile(mode=MODE, dynamic=False)
        self._pipe.vae.decoder.compile(mode=MODE, dynamic=False)
        for width, height in SIZES:
            started = time.perf_counter()
            # Two steps, because the latents of the second and all later steps come from the scheduler.
            self._image("warm up", width, height, steps=2, seed=0)
            logger.info("warmed up %d×%d in %.1f s", width, height, time.perf_counter() - started)

        # Save after the warm-up has compiled all sizes, whatever the load returned: a save publishes only new units,
        # and returns SKIPPED if there are none.
        save_compile_cache()

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{"prompt": …, "width": …, "height": …, "seed": …}`` to ``{"data": …}``, a JPEG in base64."""
        width, height = request.get("width", 1024), request.get("height", 1024)
        if (width, height) not in SIZES:
            # Another size would compile now, for minutes, while the caller waits.
            return {"error": f"width and height must be one of {', '.join(f'{w}×{h}' for w, h in SIZES)}"}
        image = self._image(request["prompt"], width, height, steps=STEPS, seed=request.get("seed", 0))
        buffer = BytesIO()
        image.save(buffer, format="JPEG")
        return {"data": base64.b64encode(buffer.getvalue()).decode()}

    def _image(self, prompt: str, width: int, height: int, *, steps: int, seed: int) -> Any:
        return self._pipe(
            prompt,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=0.0,
            max_sequence_length=PROMPT_TOKENS,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images[0]
