"""What `codec.py` measures: codecs of published shapes and a discriminator, and files of both for all sides.

small: narrow, to try the programs.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.discriminators import Discriminators
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.hf.codec import save_codec

LEVELS = {"dac": 12, "encodec": 8}
SLOPE = 0.3


def windows(small: bool) -> tuple[int, ...]:
    """Of the discriminators."""
    return (256, 128) if small else (1024, 2048, 512, 256, 128)


def mel_windows(small: bool) -> tuple[int, ...]:
    return (128, 512) if small else (64, 128, 256, 512, 1024)


def configs(small: bool) -> dict[str, CodecConfig]:
    """By family."""
    dac, decoder = (dict(kind="dac", channels=n) for n in ((8, 64) if small else (64, 1536)))
    factorised = dict(codebook_dim=8, projection="level", l2=True, learning="gradient")
    encodec = dict(
        kind="seanet", n_filters=4 if small else 32, n_residual=1, residual_kernel=3, dilation_base=2, compress=2,
        true_skip=False, pad="reflect", lstm=1 if small else 2,
    )  # fmt: skip
    means = dict(kmeans_iterations=0, restart="none")
    return {
        "dac": CodecConfig(16_000, dac["channels"] * 16, dac, decoder, factorised | dict(n_levels=LEVELS["dac"])),
        "encodec": CodecConfig(24_000, 128, encodec, encodec, means | dict(n_levels=LEVELS["encodec"])),
    }


def make_codec(config: CodecConfig) -> Codec:
    """With random weights."""
    gain = 0.6 if config.decoder["kind"] == "dac" else 1.0  # its residual units add up
    return _filled(jax.eval_shape(lambda key: Codec(config, key), jax.random.key(0)), gain)


def make_discriminators(small: bool) -> Discriminators:
    """With random weights."""
    fields = dict(windows=windows(small), slope=SLOPE, channels=4 if small else 32)
    return _filled(jax.eval_shape(lambda key: Discriminators({"stft": fields}, key), jax.random.key(0)))


def _filled(abstract, gain: float = 1.0):
    """With weights that keep the size of what passes: subnormal numbers would slow torch down. By numpy, which compiles
    nothing.
    """
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = re.findall(r"\w+", jax.tree_util.keystr(path).removesuffix(".value"))[-1]
        if name == "bias":
            return jnp.zeros(leaf.shape)
        if name == "direction":  # as long as its size: those that read folded weights begin with the same two
            value = rng.normal(size=leaf.shape)
            length = np.sqrt(np.square(value).sum(axis=tuple(range(value.ndim - 1))))
            return jnp.asarray(gain * value / length, jnp.float32)
        if name.endswith("weight"):
            return jnp.asarray(leaf.shape[-2] ** -0.5 * rng.normal(size=leaf.shape), jnp.float32)
        if name in ("codes", "sums_QxKxC"):
            return jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
        return jnp.full(leaf.shape, gain if name == "size" else 1, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, abstract)


def write(folder: Path, small: bool, seconds: float) -> None:
    """Both families as folders of Hugging Face, the discriminators as subs.npz, and {family}_{encode | decode}.npy,
    what goes in: a clip, and codes of one.
    """
    rng = np.random.default_rng(0)
    for family, config in configs(small).items():
        codec = make_codec(config)
        save_codec(codec, folder / family)
        n = round(seconds * config.sample_rate)
        np.save(folder / f"{family}_encode.npy", 0.1 * rng.normal(size=(1, n)).astype(np.float32))
        codes = rng.integers(0, 1024, (1, codec.n_frames(n), LEVELS[family]))
        np.save(folder / f"{family}_decode.npy", codes.astype(np.int32))
    arrays = {}
    for i, sub in enumerate(make_discriminators(small).subs):
        for j, conv in enumerate([*sub.layers.convs, sub.post]):
            arrays |= {f"{i}_{j}_{name}": getattr(conv, name)[...] for name in ("size", "direction", "bias")}
    np.savez(folder / "subs.npz", **arrays)


def discriminator_arrays(folder: Path, i: int) -> list[dict[str, np.ndarray]]:
    """{"size", "direction", "bias"} of each convolution of sub-discriminator `i`."""
    arrays = np.load(folder / "subs.npz")
    n = len({name.split("_")[1] for name in arrays if name.startswith(f"{i}_")})
    return [{name: arrays[f"{i}_{j}_{name}"] for name in ("size", "direction", "bias")} for j in range(n)]
