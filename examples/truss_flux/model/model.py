"""FLUX.1 [schnell] on one GPU: what takes minutes, tuning its kernels, is done once for all replicas.

diffusers is imported where it is used, so that this file can be read and checked on a machine without it.
"""

from __future__ import annotations

import base64
import logging
import time
from io import BytesIO
from typing import Any

import torch

from b10_transfer import OperationStatus, load_compile_cache, save_compile_cache

logger = logging.getLogger(__name__)

WEIGHTS = "/models/flux-schnell"
"""Where config.yaml mounts them."""
SIZES = ((1024, 1024), (1344, 768), (768, 1344))
"""Width and height of the images that are served: the only shapes that are ever compiled."""
STEPS = 4
PROMPT_TOKENS = 256
"""The most that FLUX.1 [schnell] takes. Prompts are padded to it, so it is not a matter of shapes."""
MODE = "max-autotune-no-cudagraphs"


class Model:
    """What Truss serves."""

    def __init__(self, **kwargs: Any) -> None:
        self._pipe: Any = None

    def load(self) -> None:
        from diffusers import FluxPipeline

        self._pipe = FluxPipeline.from_pretrained(WEIGHTS, torch_dtype=torch.bfloat16).to("cuda")
        self._pipe.set_progress_bar_config(disable=True)

        # Before the first compilation. Every outcome is fine. ERROR (the log says why) only means that nothing could
        # be restored, so the model compiles as it would without a cache: a slow start, once. Going on without
        # torch.compile instead would make every image slow for as long as this replica lives.
        loaded = load_compile_cache()
        logger.info("compile cache: %s", loaded.name)

        # dynamic=False: each size gets kernels of its own, whatever size was seen before it. So all replicas compile
        # the same, and find in the cache what they look for.
        self._pipe.transformer.compile(mode=MODE, dynamic=False)
        self._pipe.vae.decoder.compile(mode=MODE, dynamic=False)
        for width, height in SIZES:
            started = time.perf_counter()
            # Two steps: the second gets its latents from the scheduler, as all later ones do.
            self._image("warm up", width, height, steps=2, seed=0)
            logger.info("warmed up %d×%d in %.1f s", width, height, time.perf_counter() - started)

        # After the warm-up has compiled all sizes. A service that meets further shapes in its requests calls
        # save_compile_cache() whatever was loaded, and again later on: it publishes what the store lacks, and
        # returns SKIPPED if that is nothing.
        if loaded is not OperationStatus.SUCCESS:
            save_compile_cache()

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{"prompt": …, "width": …, "height": …, "seed": …}`` to ``{"data": …}``, a JPEG in base64."""
        width, height = request.get("width", 1024), request.get("height", 1024)
        if (width, height) not in SIZES:
            # Another size would be compiled now, for minutes, while the caller waits.
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
