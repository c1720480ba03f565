"""A codec at work: clips of any lengths to codes and back, in batches of similar lengths by few compiled programs.

Legend: B clips of a batch, N samples, T frames, Q codes of a frame.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.codes import CodeSequence
from jaxslm.codec.identity import codebook_sizes, n_levels_of
from jaxslm.codec.model import Codec

BATCH_SECONDS = dict(cpu=30, accelerator=240)  # of padded audio that is encoded or decoded at once
_SHORTEST = 16  # frames; shorter clips are padded to so many


class CodecRunner:
    """Encodes and decodes with the first `n_levels` levels of a codec, all by default.

    A clip has the codes, and codes the samples, that they have alone, up to the rounding of float32: what a batch is
    padded with is not looked at, and products are whole float32 on every device.

    batch_seconds: padded audio of a batch (None: BATCH_SECONDS).
    Raises ValueError for a number of levels that the codec does not have.
    """

    def __init__(self, codec: Codec, n_levels: int | None = None, *, batch_seconds: float | None = None):
        self.codec, most = jax.device_put(codec), n_levels_of(codec)  # not anew for every batch
        self.n_levels = most if n_levels is None else n_levels
        if not 1 <= self.n_levels <= most:
            raise ValueError(f"{n_levels} levels, but the codec has {most}: ask for 1 to {most}")
        self.sizes = codebook_sizes(codec)[: self.n_levels * (codec.n_codebooks // most)]
        on_cpu = jax.default_backend() == "cpu"
        self.batch_seconds = batch_seconds or BATCH_SECONDS["cpu" if on_cpu else "accelerator"]

    def encode(self, clips: Sequence[np.ndarray]) -> list[CodeSequence]:
        """Codes of clips [N], float at the codec's rate, N at least 1 and not more than memory holds.

        Raises ValueError for samples that are not finite.
        """
        for clip_N in clips:
            if not len(clip_N) or not np.isfinite(clip_N).all():
                raise ValueError("a clip is empty or has samples that are not finite: leave it out")
        found: list = [None] * len(clips)
        lengths = [len(clip_N) for clip_N in clips]
        for members, (rows, frames) in self._batches([self.codec.n_frames(length) for length in lengths]):
            samples_BxN = np.zeros((rows, frames * self.codec.hop), np.float32)
            lengths_B = np.ones(rows, np.int32)  # an empty row is a clip of one silent sample
            for row, i in enumerate(members):
                samples_BxN[row, : lengths[i]], lengths_B[row] = clips[i], lengths[i]
            codes_BxTxQ = np.asarray(encode_batch(self.codec, samples_BxN, lengths_B, self.n_levels))
            for codes_TxQ, i in zip(codes_BxTxQ, members, strict=False):
                ids = codes_TxQ[: self.codec.n_frames(lengths[i])].copy()
                found[i] = CodeSequence(ids, self.codec.frame_rate, lengths[i])
        return found

    def decode(self, codes: Sequence[CodeSequence]) -> list[np.ndarray]:
        """Samples float32 [N] of codes of at least these levels, as many as were encoded.

        Raises ValueError for codes out of range, of too few levels, and of more or fewer frames than their samples
        take.
        """
        n_codes = len(self.sizes)
        for each in codes:
            self.check(each)
        found: list = [None] * len(codes)
        for members, (rows, frames) in self._batches([len(each) for each in codes]):
            codes_BxTxQ, frames_B = np.zeros((rows, frames, n_codes), np.int32), np.ones(rows, np.int32)
            for row, i in enumerate(members):
                codes_BxTxQ[row, : len(codes[i])], frames_B[row] = codes[i].ids[:, :n_codes], len(codes[i])
            samples_BxN = np.asarray(decode_batch(self.codec, codes_BxTxQ, frames_B))
            for samples_N, i in zip(samples_BxN, members, strict=False):
                found[i] = samples_N[: codes[i].n_samples].copy()
        return found

    def check(self, codes: CodeSequence) -> None:
        """Raises ValueError as `decode`."""
        if codes.ids.shape[1] < len(self.sizes):
            raise ValueError(
                f"{codes.ids.shape[1]} codes a frame, where {self.n_levels} levels have {len(self.sizes)}: decode "
                "fewer levels, or encode again with more"
            )
        if len(codes) != self.codec.n_frames(codes.n_samples):
            raise ValueError(
                f"{len(codes)} frames of {self.codec.hop} samples for a clip of {codes.n_samples}: they are not of "
                "this codec, or were cut"
            )
        for level, size in enumerate(self.sizes):
            if codes.ids[:, level].max(initial=0) >= size:
                raise ValueError(
                    f"code {codes.ids[:, level].max()} in level {level + 1}, whose codebook has {size}: use the codec "
                    "that made them"
                )

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[list[int], tuple[int, int]]]:
        return similar_lengths(lengths, int(self.batch_seconds * self.codec.frame_rate))


@jax.jit(static_argnums=3)
def encode_batch(codec: Codec, samples_BxN: jax.Array, lengths_B: jax.Array, n_levels: int) -> jax.Array:
    """`Codec.encode`, compiled, with whole float32 products."""
    with jax.default_matmul_precision("highest"):
        return codec.encode(samples_BxN, lengths_B, n_levels)


@jax.jit
def decode_batch(codec: Codec, codes_BxTxQ: jax.Array, frames_B: jax.Array) -> jax.Array:
    """`Codec.decode`, compiled, with whole float32 products."""
    with jax.default_matmul_precision("highest"):
        return codec.decode(codes_BxTxQ, frames_B).astype(jnp.float32)


def similar_lengths(lengths: Sequence[int], most: int) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Clips that go together, by their frames, and (rows, frames) of their batch, of which there are few kinds.

    A batch is of at most `most` padded frames, or one clip.
    """
    groups: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        groups.setdefault(bucket(length), []).append(i)
    for n_frames, members in sorted(groups.items()):
        size = max(1, most // n_frames)
        for first in range(0, len(members), size):
            batch = members[first : first + size]
            yield batch, (min(size, 1 << (len(batch) - 1).bit_length()), n_frames)


def bucket(frames: int) -> int:
    """The next of 16, 24, 32, 48, 64, ... frames: at most half as many again are padding."""
    power = max(_SHORTEST, 1 << (max(frames, 1) - 1).bit_length())
    return power * 3 // 4 if power > _SHORTEST and frames <= power * 3 // 4 else power
