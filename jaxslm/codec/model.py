"""A neural codec: encoder, quantizer, decoder. What its parts are made of is said by a `CodecConfig`.

A clip of N samples has ceil(N / hop) frames and comes back as a whole number of hops. A batch equals its clips alone:
what lies beyond a clip's end is not looked at.

Legend: B batch, N samples, T frames, D features of a frame, Q codes of a frame.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec.codebooks import renewed
from jaxslm.codec.conv import fold_weight_norm
from jaxslm.codec.dac import DACConfig, DACDecoderConfig, dac_decoder, dac_encoder
from jaxslm.codec.quantizer_config import Quantized, QuantizerConfig
from jaxslm.codec.quantizers import make_quantizer
from jaxslm.codec.seanet import SEANetConfig, seanet_decoder, seanet_encoder
from jaxslm.codec.vocos import VocosConfig, VocosEncoderConfig, vocos_decoder, vocos_encoder
from jaxslm.masking import mask_time
from jaxslm.spelling import closest

ENCODERS: Mapping[str, tuple[type, Callable]] = {
    "seanet": (SEANetConfig, seanet_encoder),
    "dac": (DACConfig, dac_encoder),
    "vocos": (VocosEncoderConfig, vocos_encoder),
}
DECODERS: Mapping[str, tuple[type, Callable]] = {
    "seanet": (SEANetConfig, seanet_decoder),
    "dac": (DACDecoderConfig, dac_decoder),
    "vocos": (VocosConfig, vocos_decoder),
}


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """sample_rate: Hz. dim: D. encoder, decoder: {"kind": a key of ENCODERS or DECODERS} and fields of its config.
    quantizer: fields of `QuantizerConfig` but `dim`.

    Raises ValueError naming a field that is not known, and where encoder and decoder have hops that differ.
    """

    sample_rate: int
    dim: int
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    quantizer: Mapping[str, Any]

    def __post_init__(self):
        hops = self.parts[0].hop, self.parts[1].hop
        if hops[0] != hops[1]:
            raise ValueError(
                f"the encoder makes a frame of {hops[0]} samples and the decoder {hops[1]} of one: give both the same "
                "ratios"
            )

    @property
    def parts(self) -> tuple[Any, Any, QuantizerConfig]:
        """Configs of encoder, decoder, quantizer."""
        return (
            _config(self.encoder, ENCODERS, "encoder"),
            _config(self.decoder, DECODERS, "decoder"),
            _fields(QuantizerConfig, self.quantizer, "quantizer", dim=self.dim),
        )

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.parts[0].hop

    def to_json(self) -> dict[str, Any]:
        """Plain values as JSON has them, all that `CodecConfig(**values)` needs."""
        return json.loads(json.dumps(vars(self)))


class Reconstruction(NamedTuple):
    """samples_BxN: as many as came in; 0 beyond the end of a clip. quantized: see `Quantized`. latents_BxTxD: what was
    quantized. frames_B: real ones of each clip.
    """

    samples_BxN: jax.Array
    quantized: Quantized
    latents_BxTxD: jax.Array
    frames_B: jax.Array


class Codec(nnx.Module):
    """Samples to codes and back. Training changes parameters and `quantizer.codebooks`; the latter are state, which
    `with_codebooks` puts in, and takes out by None.
    """

    def __init__(self, config: CodecConfig, key: jax.Array):
        encoder, decoder, quantizer = config.parts
        keys = jax.random.split(key, 3)
        self.config = config
        self.encoder = ENCODERS[config.encoder["kind"]][1](encoder, config.dim, keys[0])
        self.quantizer = make_quantizer(quantizer, keys[1])
        self.decoder = DECODERS[config.decoder["kind"]][1](decoder, config.dim, keys[2])

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.config.hop

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.config.sample_rate / self.hop

    @property
    def n_codebooks(self) -> int:
        """Q, of all levels."""
        return self.quantizer.n_codebooks

    def n_frames(self, n_samples):
        """Frames of `n_samples` samples (an int or an array)."""
        return -(-n_samples // self.hop)

    def __call__(
        self, samples_BxN: jax.Array, n_samples_B: jax.Array, *, key: jax.Array | None = None, train: bool = False,
        n_levels: int | None = None,
    ) -> Reconstruction:  # fmt: skip
        """Clips through the codec, for training and its losses. `key` is needed to train; see the quantizers."""
        latents_BxTxD, frames_B = self._latents(samples_BxN, n_samples_B)
        real_BxT = mask_time(latents_BxTxD.shape[1], frames_B)
        quantized = self.quantizer(latents_BxTxD, real_BxT, key=key, train=train, n_levels=n_levels)
        n = samples_BxN.shape[1]
        samples = self.decoder(quantized.values_BxTxD, frames_B)[:, :n, 0]
        return Reconstruction(jnp.where(mask_time(n, n_samples_B), samples, 0), quantized, latents_BxTxD, frames_B)

    def encode(
        self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None, n_levels: int | None = None
    ) -> jax.Array:
        """Codes int32 [B, ceil(N / hop), Q] of float samples at the codec's rate, of the first `n_levels` levels.

        Codes of frames beyond a clip's end mean nothing.
        """
        return self.quantizer.encode(self._latents(samples_BxN, n_samples_B)[0], n_levels)

    def decode(self, codes_BxTxQ: jax.Array, n_frames_B: jax.Array | None = None) -> jax.Array:
        """Samples [B, T * hop] of codes of the first levels; 0 beyond the last frame of a clip.

        Raises ValueError for codes out of range and more levels than there are.
        """
        samples_BxN = self.decoder(self.quantizer.decode(codes_BxTxQ), n_frames_B)[..., 0]
        if n_frames_B is None:
            return samples_BxN
        return jnp.where(mask_time(samples_BxN.shape[1], n_frames_B * self.hop), samples_BxN, 0)

    def start_encoding(self, batch: int) -> Any:
        """State before the first chunk of `encode_chunk`. Raises ValueError for an encoder that is not causal."""
        return self.encoder.start(batch)

    def encode_chunk(self, samples_BxN: jax.Array, state: Any, n_levels: int | None = None) -> tuple[jax.Array, Any]:
        """(codes [B, N / hop, Q] of this chunk, state): chunk after chunk they are those of `encode` of the whole.

        Raises ValueError for a chunk that is no whole number of hops, and for a first one too short to be reflected.
        A clip that ends within a hop is sent with zeros behind it, and has the codes of the clip with those zeros:
        `encode` of the clip without them differs in its last frame, which every layer ends as the clip does.
        """
        latents_BxTxD, state = self.encoder.stream(samples_BxN[..., None], state)
        return self.quantizer.encode(latents_BxTxD, n_levels), state

    def start_decoding(self, batch: int) -> Any:
        """State before the first chunk of `decode_chunk`. Raises ValueError for a decoder that is not causal."""
        return self.decoder.start(batch)

    def decode_chunk(self, codes_BxTxQ: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """(samples [B, T * hop] of this chunk, state): chunk after chunk they are those of `decode` of the whole."""
        samples_BxNx1, state = self.decoder.stream(self.quantizer.decode(codes_BxTxQ), state)
        return samples_BxNx1[..., 0], state

    def with_codebooks(self, state: Any) -> "Codec":
        """The same codec with the quantizer's state in place."""
        new = renewed(self)
        new.quantizer = self.quantizer.with_codebooks(state)
        return new

    def folded(self) -> "Codec":
        """The same function without weight norm: for inference and for files of weights."""
        return fold_weight_norm(self)

    def _latents(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """(frames of whole hops, their number for each clip)."""
        n = samples_BxN.shape[1]
        padded_BxN = jnp.pad(samples_BxN, ((0, 0), (0, -n % self.hop)))
        if n_samples_B is None:
            return self.encoder(padded_BxN[..., None], jnp.full(len(samples_BxN), n) if n % self.hop else None), None
        return self.encoder(padded_BxN[..., None], n_samples_B), self.n_frames(n_samples_B)


def _config(fields: Mapping[str, Any], kinds: Mapping[str, tuple[type, Callable]], where: str):
    fields = dict(fields)
    kind = fields.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"{where}.kind={kind!r} is not one of {', '.join(kinds)}")
    return _fields(kinds[kind][0], fields, where)


def _fields(config: type, fields: Mapping[str, Any], where: str, **more: Any):
    """A config of these fields; lists become tuples, as JSON and ConfigDicts have them."""
    known = {field.name for field in dataclasses.fields(config)} - set(more)
    for name in fields:
        if name not in known:
            raise ValueError(f"{where} has no field '{name}'.{closest(name, known)}")
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return config(**frozen, **more)
