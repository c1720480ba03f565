"""A codec as what the adversarial step trains: the model of its state is {"codec": Codec, "student": Linear | None} and
what adversarial.py adds.

Legend: B batch, N samples, Q levels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxslm.codec.adversarial import Made
from jaxslm.codec.distillation import Distillation


@dataclass(frozen=True)
class CodecGenerator:
    """See `adversarial.Generator`. The codebooks are its state."""

    distillation: Distillation | None = None
    name = "codec"

    def moving(self, model: Mapping[str, Any]) -> dict[str, Any]:
        return {"codec": model["codec"].with_codebooks(None), "student": model["student"]}

    def prepare(
        self, model: Mapping[str, Any], batch: Mapping[str, jax.Array], key: jax.Array, teacher: Any, dtype: str
    ) -> Callable[[Any], Made]:
        """Of the clips of the batch, "samples" [B, N] and "length" [B, 1]."""
        real, n_B = batch["samples"], batch["length"][:, 0]
        codebooks = model["codec"].quantizer.codebooks
        heard = None if self.distillation is None else self.distillation.hear(teacher, real, n_B)

        def forward(moving: Mapping[str, Any]) -> Made:
            codec = moving["codec"].with_codebooks(codebooks)
            made = codec(real.astype(dtype), n_B, key=key, train=True)
            quantized = made.quantized
            inner = {"commitment": quantized.commitment, "codebook": quantized.codebook_loss}
            if self.distillation is not None:
                inner["distil"] = self.distillation.loss(codec.quantizer, moving["student"], made, heard)
            metrics = {
                f"{name}/level_{q + 1}": value_Q[q]
                for name, value_Q in quantized.metrics.items()
                for q in range(len(value_Q))
            }
            return Made(made.samples_BxN.astype(jnp.float32), inner, quantized.codebooks, metrics)

        return forward

    def after(self, moving: Mapping[str, Any], state: Any) -> dict[str, Any]:
        return {"codec": moving["codec"].with_codebooks(state), "student": moving["student"]}
