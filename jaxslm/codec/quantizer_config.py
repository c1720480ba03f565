"""What a quantizer is made of, and what it returns.

Legend: B batch, T frames, D features of a frame, C features of a code, Q levels, K codes of a level.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

KINDS = ("rvq", "split_rvq", "grouped_rvq", "fsq")

# Threshold and batches between checks, where the config gives none. See `codebooks.restart`.
RESTARTS = {
    "none": (0.0, 1),
    "ratio": (0.1, 5),  # Mimi, moshi/quantization/core_vq.py
    "absolute": (2.0, 1),  # SoundStream, EnCodec
    "interval": (None, 100),  # GLM-4-Voice, modeling_whisper.py
}


@dataclass(frozen=True)
class QuantizerConfig:
    """A quantizer of frames of `dim` features. `rvq` with one level is plain VQ.

    kind: "rvq": levels quantize what those before them left. "split_rvq" (Mimi): one RVQ of `n_semantic` levels and
      one of the rest, of the same frames, their values added. "grouped_rvq" (HiFi-Codec): an RVQ of `n_levels` for
      each of `n_groups` parts of the features. "fsq": rounding to a grid of `fsq_levels` steps (Mentzer et al. 2023).
    codebook_dim: features of a code; 0 means `dim`. Needs a projection.
    projection: "none"; "shared": one in and one out around all levels, no bias (Mimi); "level": one of each a level,
      with bias (DAC's factorised codes).
    l2: codes are looked up by the angle; values and losses take the code as it is (DAC).
    learning: "ema": codes are running means of their frames, in the returned state; "gradient": parameters, moved by
      the codebook loss.
    kmeans_iterations: of the k-means on the first batch that initialises EMA codebooks; 0: they start at random.
    restart: what makes a code dead, one of RESTARTS, and of EMA codebooks only; `restart_threshold` and
      `restart_every` (batches) are those of its authors where None.
    dropout: share of the items, the first of the batch and rounded down, that use only 1..Q levels, drawn evenly; .5
      is DAC's.
    no_quantization_rate: probability that an item passes unquantized while training (Mimi).
    rotation: gradients pass the quantizer by rotation and scaling (Fifty et al. 2024) rather than as they are.
    """

    dim: int
    kind: str = "rvq"
    n_levels: int = 8
    codebook_size: int = 1024
    codebook_dim: int = 0
    projection: str = "none"
    l2: bool = False
    learning: str = "ema"
    decay: float = 0.99
    kmeans_iterations: int = 50
    restart: str = "ratio"
    restart_threshold: float | None = None
    restart_every: int | None = None
    dropout: float = 0.0
    no_quantization_rate: float = 0.0
    rotation: bool = False
    n_semantic: int = 1
    n_groups: int = 2
    fsq_levels: tuple[int, ...] = (8, 8, 8)

    def __post_init__(self):
        for name, known in (
            ("kind", KINDS),
            ("projection", ("none", "shared", "level")),
            ("learning", ("ema", "gradient")),
            ("restart", tuple(RESTARTS)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"quantizer.{name}='{getattr(self, name)}' is not one of {', '.join(known)}")
        for name in ("dim", "n_levels", "codebook_size", "n_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"quantizer.{name}={getattr(self, name)}; set it to 1 or more")
        for name in ("dropout", "no_quantization_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"quantizer.{name}={getattr(self, name)} is a share; set it to 0 to 1")
        for name, least in (("kmeans_iterations", 0), ("restart_threshold", 0), ("restart_every", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"quantizer.{name}={getattr(self, name)}; set it to {least} or more")
        if self.restart == "interval" and self.restart_threshold is not None:
            raise ValueError("quantizer.restart_threshold is not for restart='interval', which restarts unused codes")
        if not 0 < self.decay < 1:
            raise ValueError(f"quantizer.decay={self.decay}; set it above 0 and below 1")
        if self.projection == "none" and self.codebook_dim not in (0, self.dim):
            raise ValueError(
                f"quantizer.codebook_dim={self.codebook_dim} differs from dim={self.dim}; set quantizer.projection to "
                "shared or level, or codebook_dim to 0"
            )
        if self.kind == "split_rvq" and not 0 < self.n_semantic < self.n_levels:
            raise ValueError(
                f"quantizer.n_semantic={self.n_semantic} leaves none of n_levels={self.n_levels} to one half of the "
                f"split; set it to 1 to {self.n_levels - 1}"
            )
        if self.kind == "grouped_rvq" and self.dim % self.n_groups:
            raise ValueError(f"quantizer.dim={self.dim} is not a multiple of n_groups={self.n_groups}; change one")
        if self.kind == "fsq" and (not self.fsq_levels or min(self.fsq_levels) < 3):
            raise ValueError(f"quantizer.fsq_levels={self.fsq_levels}; give at least one number, each 3 or more")

    @property
    def code_dim(self) -> int:
        """C."""
        return self.codebook_dim or self.dim

    @property
    def started(self) -> bool:
        """Whether codebooks are usable before they have seen a batch."""
        return self.learning == "gradient" or not self.kmeans_iterations

    @property
    def restart_rule(self) -> tuple[float | None, int]:
        """Threshold, and batches between checks."""
        threshold, every = RESTARTS[self.restart]
        threshold = threshold if self.restart_threshold is None else self.restart_threshold
        return threshold, every if self.restart_every is None else self.restart_every


class Quantized(NamedTuple):
    """What a quantizer makes of a batch.

    values_BxTxD: in the dtype of the frames; gradients reach the frames through them.
    codes_BxTxQ: int32; also of padding frames, which count for nothing.
    commitment, codebook_loss: float32 scalars, means over real frames, features and levels. The first pulls frames to
      their codes, the second codes to their frames (0 for EMA codebooks, which move by themselves).
    codebooks: the state after this batch; the state before it unless training.
    metrics: float32 [Q] each. "usage": share of the codes that this batch takes; "perplexity": exp of the entropy of
      its codes, K if all are taken alike; "dead": codes that of late got less than a tenth of an even share.
    """

    values_BxTxD: jax.Array
    codes_BxTxQ: jax.Array
    commitment: jax.Array
    codebook_loss: jax.Array
    codebooks: Any
    metrics: dict[str, jax.Array]
