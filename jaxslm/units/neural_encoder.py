"""Features of a neural speech encoder for clips of any length, by few compiled programs, on all devices of a process.

Shape letters: B clips of a batch, N samples, T frames, D features.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.pauses import cuts_at_quiet
from jaxslm.hf.speech import load_speech_encoder, source_sha256
from jaxslm.hf.tensors import TensorFolder
from jaxslm.models.speech_encoder import SpeechEncoder
from jaxslm.models.whisper_encoder import WhisperEncoder
from jaxslm.units.encoders import Head
from jaxslm.units.kmeans import in_chunks

# Clips are padded to the next of these: a program each, not one a length.
BUCKET_SECONDS = (2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32)
BATCH_SECONDS = dict(cpu=32, accelerator=640)  # of padded audio that a device encodes at once
_IN_FLIGHT = 2  # batches that wait for their results: a device has its next one while results are fetched
_NOT_IN_HASH = ("layer", "dtype", "crop", "vocab_size")


class NeuralEncoder:
    """An `Encoder`: the features of one layer of a model folder, see `jaxslm.hf.speech.load_speech_encoder`.

    A clip has the features, up to the rounding of float32, that it has alone, and the units but for frames that are
    as near to one centroid as to another; in bfloat16 the rounding is coarser, and more frames move.

    batch_seconds: padded audio that a device encodes at once (None: BATCH_SECONDS); more keeps an accelerator busy.
    devices: that share a batch; by default those of this process (one, if they are CPUs).
    """

    def __init__(
        self,
        folder: str,
        layer: int,
        *,
        dtype: str = "float32",
        crop: bool = False,
        batch_seconds: float | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.folder, self.dtype, self.crop = Path(folder).expanduser().resolve(), dtype, crop
        model = self._load(layer, dtype, crop)
        if crop and not isinstance(model, WhisperEncoder):
            raise ValueError(f"{folder}: units.crop is for Whisper, which hears 30 s at a time; leave it out")
        self.config = model.config
        self.frame_rate, self.frame_centre, self.dim = (
            self.config.frame_rate,
            self.config.frame_centre,
            self.config.d_model,
        )
        last = isinstance(model, SpeechEncoder) and layer == -1 and not self.config.pre_norm  # else a norm is between
        self.layer = self.config.n_layers if last else self.config.layer
        # With what the last window reaches beyond its hop, a bucket is whole frames to its end.
        beyond = self.config.window_samples - round(SAMPLE_RATE / self.frame_rate)
        shortest, longest = self.config.row_samples
        buckets = (seconds * SAMPLE_RATE + max(beyond, 0) for seconds in BUCKET_SECONDS)
        self.buckets = sorted({min(max(bucket, shortest), longest) for bucket in buckets})
        on_cpu = jax.default_backend() == "cpu"
        self.batch_seconds = batch_seconds or BATCH_SECONDS["cpu" if on_cpu else "accelerator"]
        devices = devices or jax.local_devices()[: 1 if on_cpu else None]
        self._mesh = Mesh(np.array(devices), "batch")
        self.model = jax.device_put(model, NamedSharding(self._mesh, P()))
        each = jax.shard_map(
            self._outputs,
            mesh=self._mesh,
            in_specs=(P(), P("batch"), P("batch"), P()),
            out_specs=P("batch"),
            check_vma=False,
        )
        self._run = jax.jit(each)

    def _load(self, layer: int, dtype: str, crop: bool) -> SpeechEncoder | WhisperEncoder:
        return load_speech_encoder(self.folder, layer=layer, dtype=dtype, crop=crop)

    @staticmethod
    def _outputs(model, samples_BxN: jax.Array, lengths_B: jax.Array, head: Head | None) -> jax.Array:
        features_BxTxD = model(samples_BxN, lengths_B)[0]
        return features_BxTxD if head is None else in_chunks(head, features_BxTxD)

    @functools.cached_property
    def name(self) -> str:
        kind = json.loads((self.folder / "config.json").read_text())["model_type"]
        return f"{kind}-{self.weights_sha256[:8]}"

    @functools.cached_property
    def weights_sha256(self) -> str:
        shape = {
            field.name: getattr(self.config, field.name)
            for field in dataclasses.fields(self.config)
            if field.name not in _NOT_IN_HASH and getattr(self.config, field.name) != field.default
        }
        digest = hashlib.sha256(json.dumps([type(self.model).__name__, shape], sort_keys=True).encode())
        tensors = TensorFolder(self.folder)
        for name in sorted(tensors.names()):
            tensor = np.ascontiguousarray(tensors.read(name))
            digest.update(f"{name}:{tensor.dtype}:{tensor.shape}:".encode())
            digest.update(tensor.view(np.uint8) if tensor.size else b"")
        return digest.hexdigest()

    @property
    def source_sha256(self) -> str:
        """Of the checkpoint the folder was converted from; "" where that is not known."""
        return source_sha256(self.folder)

    @property
    def identity(self) -> dict:
        same = {name: getattr(self, name) for name in ("layer", "frame_rate", "weights_sha256", "dtype", "crop")}
        return same | dict(encoder=self.name, encoder_folder=str(self.folder))

    def encode(self, clips: Sequence[np.ndarray], head: Head | None = None) -> list[np.ndarray]:
        """Features [T, D], or ids [T], of clips of any lengths, in batches of one bucket each.

        A clip longer than the longest bucket is heard in pieces, see `_pieces`.

        Raises:
          ValueError: a clip shorter than one window.
        """
        pieces = [self._pieces(clip) for clip in clips]
        found = iter(self._encode_short(list(itertools.chain(*pieces)), head))
        return [np.concatenate([next(found) for _ in parts]) if parts[1:] else next(found) for parts in pieces]

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

    def _encode_short(self, clips: Sequence[np.ndarray], head: Head | None) -> list[np.ndarray]:
        head = jax.device_put(head, NamedSharding(self._mesh, P()))
        found: list[np.ndarray] = [None] * len(clips)
        waiting: collections.deque[tuple[list[int], jax.Array]] = collections.deque()

        def fetch() -> None:
            members, rows = waiting.popleft()
            for i, row in zip(members, np.asarray(rows), strict=False):
                found[i] = row[: self.config.frames(len(clips[i]))].copy()

        for members, rows in self._batches([len(clip) for clip in clips]):
            samples_BxN, lengths_B = np.zeros(rows, np.float32), np.zeros(rows[0], np.int32)
            for row, i in enumerate(members):
                samples_BxN[row, : len(clips[i])], lengths_B[row] = clips[i], len(clips[i])
            waiting.append((members, self._run(self.model, samples_BxN, lengths_B, head)))
            if len(waiting) > _IN_FLIGHT:
                fetch()
        while waiting:
            fetch()
        return found

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Clips that are encoded together, and the shape [B, N] of their batch: one a bucket, and one for a clip that
        is alone, which need not wait for more.
        """
        groups: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            groups.setdefault(self._bucket_of(length), []).append(i)
        n_devices = self._mesh.size
        for bucket, members in sorted(groups.items()):
            size = max(1, int(self.batch_seconds * SAMPLE_RATE) // bucket) * n_devices
            for first in range(0, len(members), size):
                batch = members[first : first + size]
                yield batch, (n_devices if len(batch) == 1 else size, bucket)

    def _bucket_of(self, length: int) -> int:
        window = self.config.window_samples
        if length < window:
            raise ValueError(f"{length} samples are less than one window of {window}: leave such clips out")
        return next(bucket for bucket in self.buckets if length <= bucket)
