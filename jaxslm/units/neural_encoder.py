"""Features of a neural speech encoder for clips of any length, by few compiled programs.

Shape letters: B clips of a batch, N samples, T frames, D features.
"""

import functools
import hashlib
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.pauses import cuts_at_quiet
from jaxslm.hf.speech import load_speech_encoder, weight_files
from jaxslm.models.speech_encoder import SpeechEncoder
from jaxslm.models.whisper_encoder import WhisperEncoder

# Clips are padded to the next of these: a program each, not one a length.
BUCKET_SECONDS = (2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32)


class NeuralEncoder:
    """An `Encoder`: the features of one layer of a model folder, see `jaxslm.hf.speech.load_speech_encoder`.

    batch_seconds: padded audio that is encoded at once; more keeps an accelerator busy.
    """

    def __init__(self, name: str, layer: int, dtype: str = "float32", batch_seconds: float = 32):
        self.name, self.batch_seconds = name, batch_seconds
        self.model = self._load(layer, dtype)
        self.config = self.model.config
        self.frame_rate, self.dim = self.config.frame_rate, self.config.d_model
        # With what the last window reaches beyond its hop, a bucket is whole frames to its end.
        beyond = self.config.window_samples - round(SAMPLE_RATE / self.frame_rate)
        shortest, longest = self.config.row_samples
        buckets = (seconds * SAMPLE_RATE + max(beyond, 0) for seconds in BUCKET_SECONDS)
        self.buckets = sorted({min(max(bucket, shortest), longest) for bucket in buckets})
        self._run = jax.jit(self._outputs)

    def _load(self, layer: int, dtype: str) -> SpeechEncoder | WhisperEncoder:
        return load_speech_encoder(self.name, layer=layer, dtype=dtype)

    @staticmethod
    def _outputs(model, samples_BxN: jax.Array, lengths_B: jax.Array) -> jax.Array:
        return model(samples_BxN, lengths_B)[0]

    @functools.cached_property
    def weights_sha256(self) -> str:
        digest = hashlib.sha256()
        for path in weight_files(self.name):
            with open(path, "rb") as file:
                digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def __call__(self, samples_N: np.ndarray) -> np.ndarray:
        return self.encode([samples_N])[0]

    def encode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Features [T, D] of clips of any lengths, in batches of one bucket each.

        A clip longer than the longest bucket is heard in pieces, see `_pieces`.

        Raises:
          ValueError: a clip shorter than one window.
        """
        pieces = [self._pieces(clip) for clip in clips]
        features = iter(self._encode_short(list(itertools.chain(*pieces))))
        return [np.concatenate([next(features) for _ in parts]) if parts[1:] else next(features) for parts in pieces]

    def _pieces(self, clip: np.ndarray) -> list[np.ndarray]:
        """The clip, or parts of it that fit the longest bucket, cut in quiet places at the start of a frame.

        A part reaches into the next by what its last window needs (80 samples of HuBERT), so that together they have
        the frames of the whole clip, each once; a frame hears its own part alone.
        """
        longest, hop = self.buckets[-1], round(SAMPLE_RATE / self.frame_rate)
        if len(clip) <= longest:
            return [clip]
        beyond = max(self.config.window_samples - hop, 0)
        cuts = cuts_at_quiet(clip, longest - beyond - hop, SAMPLE_RATE)
        starts = [0, *(round(cut / hop) * hop for cut in cuts)]
        return [clip[a : b + beyond] for a, b in itertools.pairwise([*starts, len(clip)])]

    def _encode_short(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        groups: dict[int, list[int]] = {}
        for i, clip in enumerate(clips):
            groups.setdefault(self._bucket_of(len(clip)), []).append(i)
        features: list[np.ndarray] = [None] * len(clips)
        for bucket, members in sorted(groups.items()):
            size = max(1, int(self.batch_seconds * SAMPLE_RATE) // bucket)
            for first in range(0, len(members), size):
                batch = members[first : first + size]
                for i, clip_TxD in zip(batch, self._encode([clips[i] for i in batch], bucket, size), strict=True):
                    features[i] = clip_TxD
        return features

    def _encode(self, clips: Sequence[np.ndarray], bucket: int, size: int) -> list[np.ndarray]:
        rows = 1 if len(clips) == 1 else size  # single clips have a program of their own: they need not wait for more
        samples_BxN, lengths_B = np.zeros((rows, bucket), np.float32), np.zeros(rows, np.int32)
        for row, clip in enumerate(clips):
            samples_BxN[row, : len(clip)], lengths_B[row] = clip, len(clip)
        features_BxTxD = np.asarray(self._run(self.model, jnp.asarray(samples_BxN), jnp.asarray(lengths_B)))
        frames = [self.config.frames(len(clip)) for clip in clips]
        return [features_BxTxD[row, :n].copy() for row, n in enumerate(frames)]

    def _bucket_of(self, length: int) -> int:
        window = self.config.window_samples
        if length < window:
            raise ValueError(f"{length} samples are less than one window of {window}: leave such clips out")
        return next(bucket for bucket in self.buckets if length <= bucket)
