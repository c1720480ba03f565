"""Which codec it is: the hash under which codes are kept, and what a manifest says of it.

Legend: Q codes of a frame, K codes of a level, C features of a code.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxslm.codec.codebooks import EPSILON, Codebooks
from jaxslm.codec.model import Codec
from jaxslm.naming import parameter_name

# How a quantizer learns, and convolutions, bears on no code once they have learnt.
_OF_TRAINING = (
    "decay", "kmeans_iterations", "restart", "restart_threshold", "restart_every", "dropout", "no_quantization_rate",
    "rotation", "norm",
)  # fmt: skip


def codebook_sizes(codec: Codec) -> list[int]:
    """K of each of the Q codes of a frame."""
    quantizer = codec.quantizer
    size = quantizer.size if quantizer.config.kind == "fsq" else quantizer.config.codebook_size
    return [size] * codec.n_codebooks


def n_levels_of(codec: Codec) -> int:
    """The most levels that can be asked for."""
    return 1 if codec.quantizer.config.kind == "fsq" else codec.quantizer.config.n_levels


def codec_sha256(codec: Codec) -> str:
    """Two codecs with one hash give the same codes for the same samples, and the same samples for the same codes.

    It covers the configuration and all tensors but for what only training looks at; weight norm is folded before.
    """
    codec = codec.folded()
    digest = hashlib.sha256(json.dumps(_fields(codec), sort_keys=True).encode())
    tree = jax.tree.map(_codes_alone, codec, is_leaf=lambda node: isinstance(node, Codebooks))
    tensors = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name], "<f4")
        digest.update(f"{name}:{tensor.shape}:".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def describe_codec(codec: Codec, name: str) -> dict[str, Any]:
    """What the manifest of a folder with codes says of the codec that made them; `name` is for people."""
    return dict(
        name=name,
        sha256=codec_sha256(codec),
        sample_rate=codec.config.sample_rate,
        frame_rate=codec.frame_rate,
        hop=codec.hop,
        levels=n_levels_of(codec),
        codebook_sizes=codebook_sizes(codec),
    )


def _fields(codec: Codec) -> dict[str, Any]:
    """The plain values that bear on codes and samples. What is as it always was adds no entry, so that a field that a
    later version adds leaves older hashes as they are.
    """
    config = codec.config
    parts = dict(zip(("encoder", "decoder", "quantizer"), config.parts, strict=True))
    kinds: dict[str, Mapping] = dict(encoder=config.encoder, decoder=config.decoder, quantizer={})
    fields: dict[str, Any] = dict(sample_rate=config.sample_rate, dim=config.dim)
    for part, values in parts.items():
        fields[part] = {"kind": kinds[part].get("kind")} if part != "quantizer" else {}
        fields[part] |= _changed(values)
    return fields


def _changed(config: Any) -> dict[str, Any]:
    """What a config has otherwise than by default."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        field.name: _changed(values[field.name]) if dataclasses.is_dataclass(values[field.name]) else values[field.name]
        for field in dataclasses.fields(config)
        if values[field.name] != field.default and field.name not in _OF_TRAINING
    }


def exact_codes(book: Codebooks) -> np.ndarray:
    """The codes [Q, K, C] of codebooks that are running means, by a division that every machine rounds alike."""
    usage_QxK, sums_QxKxC = np.asarray(book.usage_QxK), np.asarray(book.sums_QxKxC)
    return sums_QxKxC / np.maximum(usage_QxK, np.float32(EPSILON))[..., None]


def _codes_alone(node: Any) -> Any:
    if not isinstance(node, Codebooks):
        return node
    return None if node.sums_QxKxC is None else exact_codes(node)
