"""Codecs against transformers and torch on a CPU: DAC's decoder, EnCodec's encoder and decoder with its quantizer, and
the whole step of EnCodec's adversarial training (codec_torch.py).

Each side runs in a process of its own, and the two take steps in turn. Both have the weights of one folder and the same
samples; codes, samples and losses are compared, so that the faster one is known to have done the same work. Weight norm
is folded on both sides where nothing is trained.

    python launch/bench.py codec
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.benchmarks.measure import Side, report, serve

PARTS = ("dac_decode", "encodec_encode", "encodec_decode", "training")
LEVELS = {"dac": 12, "encodec": 8}
WINDOWS = (1024, 2048, 512, 256, 128)
SLOPE = 0.3
ADAM = dict(lr=3e-4, betas=(0.5, 0.9), eps=1e-8)
AVERAGE_DECAY = 0.99
MODULE = "jaxslm.benchmarks.codec"
Step = Callable[[], dict]


def run(argv: list[str]) -> dict[str, Any]:
    """Measures the parts; see `measure.report`. `ratio` is the lowest; `ratios` and `agreement` are details."""
    flags = _flags(argv)
    if flags.worker:
        os.sched_setaffinity(0, range(flags.threads))
        part, side = flags.worker
        {"training": _serve_training}.get(part, _serve_coding)(part, side, Path(flags.folder), flags)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), flags)
        found = {part: _measure(part, folder, argv, flags) for part in flags.parts}
    ratios = {part: one["seconds"]["peer"] / one["seconds"]["ours"] for part, one in found.items()}
    worst = min(ratios, key=ratios.get)
    audio = _audio_seconds(worst, flags)
    return report(
        "codec",
        ours=audio / found[worst]["seconds"]["ours"],
        peer=audio / found[worst]["seconds"]["peer"],
        unit=f"x real time of {worst}, float32, median of {flags.rounds}",
        peak_memory_mib=found[worst]["peak_memory_mib"],
        shapes={name: value for name, value in vars(flags).items() if name not in ("worker", "folder")},
        packages=("jax", "flax", "torch", "transformers"),
        ratios=ratios,
        load=os.getloadavg()[0],
        **found,
    )


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py codec", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of the clip that is encoded and decoded")
    parser.add_argument("--batch", type=int, default=2, help="clips of 1 s of a training step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--small", action="store_true", help="narrow models, to try the program")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _audio_seconds(part: str, flags: argparse.Namespace) -> float:
    return flags.batch if part == "training" else flags.seconds


def _measure(part: str, folder: str, argv: list[str], flags: argparse.Namespace) -> dict[str, Any]:
    """Medians of both sides, peaks of memory, how far what they give is apart."""
    sides = {
        name: Side(MODULE, [*argv, f"--folder={folder}", "--worker", part, name], {"JAX_PLATFORMS": "cpu"})
        for name in ("ours", "peer")
    }
    steps: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(flags.warmup + flags.rounds):
        for name, side in sides.items():
            steps[name].append(side.step())
    timed = {name: own[flags.warmup :] for name, own in steps.items()}
    medians = {
        key: {name: statistics.median(step[key] for step in own) for name, own in timed.items()}
        for key in ("seconds", "cpu_seconds")
    }
    peaks = {name: side.finish() for name, side in sides.items()}
    agreement = _losses_apart(steps) if part == "training" else _outputs_apart(part, Path(folder))
    return medians | {"peak_memory_mib": peaks, "agreement": agreement}


def _losses_apart(steps: dict[str, list[dict]]) -> dict[str, float]:
    """The largest difference of each loss, relative, over all steps."""
    pairs = list(zip(steps["ours"], steps["peer"], strict=True))
    names = [name for name in steps["peer"][0] if not name.endswith("seconds")]
    return {n: max(abs(a[n] - b[n]) / max(abs(b[n]), 1e-3) for a, b in pairs) for n in names}


def _outputs_apart(part: str, folder: Path) -> dict[str, float]:
    ours, peer = (np.load(folder / f"{part}_{side}.npy") for side in ("ours", "peer"))
    if part.endswith("encode"):
        return {"share_of_equal_codes": float(np.mean(ours == peer))}
    n = peer.shape[1] * 3 // 4  # transformers' DAC has another end
    apart = np.abs(ours[:, :n] - peer[:, :n]).max()
    return {"largest_difference": float(apart), "deviation": float(peer.std())}


def _configs(small: bool) -> dict:
    from jaxslm.codec.model import CodecConfig

    dac = dict(kind="dac", channels=8 if small else 64, decoder_channels=64 if small else 1536)
    factorised = dict(codebook_dim=8, projection="level", l2=True, learning="gradient")
    encodec = dict(
        kind="seanet", n_filters=4 if small else 32, n_residual=1, residual_kernel=3, dilation_base=2, compress=2,
        true_skip=False, pad="reflect", lstm=2,
    )  # fmt: skip
    means = dict(kmeans_iterations=0, restart="none")
    return {
        "dac": CodecConfig(16_000, dac["channels"] * 16, dac, dac, factorised | dict(n_levels=LEVELS["dac"])),
        "encodec": CodecConfig(24_000, 128, encodec, encodec, means | dict(n_levels=LEVELS["encodec"])),
    }


def _codec(config):
    """A codec whose layers keep the size of what passes: subnormal numbers would slow torch down."""
    import jax

    from jaxslm.codec.model import Codec

    codec = Codec(config, jax.random.key(0))
    is_kernel = lambda path: jax.tree_util.keystr(path[-2:], simple=True) in ("sizevalue", "directionvalue")  # noqa: E731
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * 3**0.5 if is_kernel(path) else leaf, codec)


def _write(folder: Path, flags: argparse.Namespace) -> None:
    """Weights of both families as folders, the discriminator's as arrays, and what goes in."""
    from jaxslm.hf.codec import save_codec

    rng = np.random.default_rng(0)
    for family, config in _configs(flags.small).items():
        codec = _codec(config)
        save_codec(codec, folder / family)
        n = round(flags.seconds * config.sample_rate)
        np.save(folder / f"{family}_encode.npy", 0.1 * rng.normal(size=(1, n)).astype(np.float32))
        codes = rng.integers(0, 1024, (1, codec.n_frames(n), LEVELS[family]))
        np.save(folder / f"{family}_decode.npy", codes.astype(np.int32))
    subs = {f"{i}": _arrays(sub) for i, sub in enumerate(_discriminators(flags.small).subs)}
    np.savez(folder / "subs.npz", **{f"{i}_{name}": value for i, sub in subs.items() for name, value in sub.items()})


def _discriminators(small: bool):
    import jax

    from jaxslm.codec.discriminators import Discriminators

    fields = dict(windows=WINDOWS, slope=SLOPE, channels=4 if small else 32)
    return Discriminators({"stft": fields}, jax.random.key(1))


def _arrays(sub) -> dict[str, np.ndarray]:
    """ "{number of the convolution}_{size | direction | bias}"."""
    convs = [*sub.layers.convs, sub.post]
    names = ("size", "direction", "bias")
    return {f"{j}_{name}": np.asarray(getattr(conv, name)[...]) for j, conv in enumerate(convs) for name in names}


def _serve_coding(part: str, side: str, folder: Path, flags: argparse.Namespace) -> None:
    family, does = part.split("_")
    given = np.load(folder / f"{part}.npy")
    step = {"ours": _our_coding, "peer": _peer_coding}[side](family, does, folder / family, given, flags)

    def once() -> dict:
        np.save(folder / f"{part}_{side}.npy", step())
        return {}

    serve(once for _ in iter(int, 1))


def _our_coding(family: str, does: str, folder: Path, given: np.ndarray, flags: argparse.Namespace) -> Callable:
    import jax

    from jaxslm.hf.codec import load_codec

    codec = load_codec(folder)
    run = jax.jit(lambda codec, given: getattr(codec, does)(given))
    return lambda: np.asarray(run(codec, given))


def _peer_coding(family: str, does: str, folder: Path, given: np.ndarray, flags: argparse.Namespace) -> Callable:
    import torch
    import transformers

    torch.set_num_threads(flags.threads)
    peer = getattr(transformers, {"dac": "DacModel", "encodec": "EncodecModel"}[family]).from_pretrained(folder).eval()
    for module in peer.modules():
        if torch.nn.utils.parametrize.is_parametrized(module):
            torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    if does == "encode":
        samples = torch.tensor(given)[:, None]
        bandwidth = peer.config.target_bandwidths[-1]
        work = lambda: peer.encode(samples, bandwidth=bandwidth).audio_codes[0].permute(0, 2, 1)  # noqa: E731
    else:
        codes = torch.tensor(given).permute(0, 2, 1).long()
        arguments = ([codes[None], [None]], {}) if family == "encodec" else ([], dict(audio_codes=codes))
        work = lambda: peer.decode(*arguments[0], **arguments[1]).audio_values.reshape(1, -1)  # noqa: E731

    def once() -> np.ndarray:
        with torch.inference_mode():
            return work().numpy()

    return once


def _serve_training(part: str, side: str, folder: Path, flags: argparse.Namespace) -> None:
    step = {"ours": _our_training, "peer": _peer_training}[side](folder, flags)
    serve((lambda samples=samples: step(samples)) for samples in _clips(flags))


def _clips(flags: argparse.Namespace) -> Iterator[np.ndarray]:
    """Tones in noise [B, 24000]."""
    rng, time = np.random.default_rng(0), np.arange(24_000) / 24_000
    while True:
        pitch = rng.uniform(80, 400, (flags.batch, 1))
        tones = np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * time)
        yield (0.3 * tones + 0.01 * rng.normal(size=tones.shape)).astype(np.float32)


def _our_training(folder: Path, flags: argparse.Namespace) -> Callable[[np.ndarray], dict]:
    import jax
    import jax.numpy as jnp

    from jaxslm.codec.adversarial import CodecTraining
    from jaxslm.codec.objective import Objective
    from jaxslm.training.optimizer import make_optimizer
    from jaxslm.training.state import TrainState

    losses = dict(
        balance=True,
        spectral=dict(mel=dict(weight=2.0, form="encodec")),
        waveform=dict(weight=0.1, form="l1"),
        adversarial=dict(weight=4.0, form="hinge", average=True, start=0),
        feature=dict(weight=4.0, form="mean"),
        commitment=1.0,
        codebook=0.0,
        distil=dict(weight=0.0),
    )
    adam = dict(peak_lr=ADAM["lr"], final_lr=ADAM["lr"], schedule="constant", warmup_steps=0, b1=ADAM["betas"][0])
    adam |= dict(b2=ADAM["betas"][1], eps=ADAM["eps"], weight_decay=0.0, clip_norm=0.0, moment_dtype="float32")
    optimizer, schedule = make_optimizer(adam, 1000)
    names = ("codec", "discriminators")
    objective = Objective(losses, 24_000)
    training = CodecTraining(
        objective, None, dict.fromkeys(names, optimizer), dict.fromkeys(names, schedule), average_decay=AVERAGE_DECAY
    )
    codec = _codec(_configs(flags.small)["encodec"])
    model = dict(codec=codec, student=None, discriminators=_discriminators(flags.small))
    model["average"] = codec.with_codebooks(None)
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(model, training.start(model), jnp.int32(0), key, jnp.int32(0), jnp.int32(0))
    states = [jax.tree.map(jnp.array, state)]  # the state is donated: no two of its buffers may be one
    compiled = jax.jit(lambda state, batch: training.step(state, batch, None, True), donate_argnums=0)
    lengths = np.full((flags.batch, 1), 24_000, np.int32)

    def step(samples: np.ndarray) -> dict:
        states[0], metrics = jax.block_until_ready(compiled(states[0], dict(samples=samples, length=lengths)))
        return {name.removeprefix("loss/"): float(v) for name, v in metrics.items() if name.startswith("loss/")}

    return step


def _peer_training(folder: Path, flags: argparse.Namespace) -> Callable[[np.ndarray], dict]:
    import torch
    import transformers

    from jaxslm.audio.spectra import mel_bands
    from jaxslm.benchmarks import codec_torch as peers

    torch.set_num_threads(flags.threads)
    codec = transformers.EncodecModel.from_pretrained(folder / "encodec").train()
    for name, parameter in codec.named_parameters():
        if "bias_hh" in name:  # ours has one bias
            parameter.requires_grad_(False)
    codes_QxKxD = np.stack([level.codebook.embed.numpy() for level in codec.quantizer.layers])
    arrays = np.load(folder / "subs.npz")

    def convs(i: int) -> list[dict[str, np.ndarray]]:
        n = len({name.split("_")[1] for name in arrays if name.startswith(f"{i}_")})
        return [{name: arrays[f"{i}_{j}_{name}"] for name in ("size", "direction", "bias")} for j in range(n)]

    subs = [peers.StftSub(window, convs(i), (1, 2, 4), SLOPE) for i, window in enumerate(WINDOWS)]
    bands = {w: mel_bands(24_000, w, 64, 64.0, None, True, False) for w in peers.MEL_WINDOWS}
    quantizer = peers.Quantizer(codes_QxKxD, decay=0.99)
    training = peers.Training(codec, quantizer, subs, peers.Mel(bands), ADAM | dict(fused=True), AVERAGE_DECAY)
    return lambda samples: training.step(torch.from_numpy(samples))


if __name__ == "__main__":
    run(sys.argv[1:])
