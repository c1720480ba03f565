"""Codecs against transformers and torch on a CPU: DAC's decoder, EnCodec's encoder and decoder with its quantizer, and
the whole step of EnCodec's adversarial training (codec_training.py).

Each side runs in a process of its own, and the two take steps in turn. Both have the same weights and the same samples;
codes, samples and losses are compared, so that the faster one is known to have done the same work. Weight norm is
folded on both sides where nothing is trained. With other programs beside it, look at one thread: those of torch wait
for each other all the time, and for one that is kept waiting the longer.

    python launch/bench.py codec --threads 1
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.benchmarks.measure import Side, report, serve

PARTS = ("dac_decode", "encodec_encode", "encodec_decode", "training")
MODULE = "jaxslm.benchmarks.codec"


def run(argv: list[str]) -> dict[str, Any]:
    """Measures the parts; see `measure.report`. `ratio` is the lowest of `ratios`; `cpu_ratios` are of CPU seconds."""
    flags = _flags(argv)
    if flags.worker:
        os.sched_setaffinity(0, range(flags.threads))
        _work(*flags.worker, Path(flags.folder), flags)
        return {}
    from jaxslm.benchmarks.codec_models import write

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), flags.small, flags.seconds)
        found = {part: _measure(part, folder, argv, flags) for part in flags.parts}
    ratios, cpu_ratios = (
        {part: one[key]["peer"] / one[key]["ours"] for part, one in found.items()} for key in ("seconds", "cpu_seconds")
    )
    worst = min(ratios, key=ratios.get)
    audio = flags.batch if worst == "training" else flags.seconds
    speeds = {side: audio / found[worst]["seconds"][side] for side in ("ours", "peer")}
    return report(
        "codec",
        **speeds,
        unit=f"x real time of {worst}, float32, median of {flags.rounds}",
        peak_memory_mib=found[worst]["peak_memory_mib"],
        shapes={name: value for name, value in vars(flags).items() if name not in ("worker", "folder")},
        packages=("jax", "flax", "torch", "transformers"),
        ratios=ratios,
        cpu_ratios=cpu_ratios,
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
    medians = {
        key: {name: statistics.median(step[key] for step in own[flags.warmup :]) for name, own in steps.items()}
        for key in ("seconds", "cpu_seconds")
    }
    peaks = {name: side.finish()["peak_memory_mib"] for name, side in sides.items()}
    agreement = losses_apart(steps) if part == "training" else outputs_apart(part, Path(folder))
    return medians | {"peak_memory_mib": peaks, "agreement": agreement}


def losses_apart(steps: dict[str, list[dict]]) -> dict[str, float]:
    """The largest difference of each loss, relative, over all steps."""
    names = [name for name in steps["peer"][0] if not name.endswith("seconds")]
    pairs = list(zip(steps["ours"], steps["peer"], strict=True))
    return {name: max(abs(a[name] - b[name]) / max(abs(b[name]), 1e-3) for a, b in pairs) for name in names}


def outputs_apart(part: str, folder: Path) -> dict[str, float]:
    """Of {part}_{side}.npy in `folder`."""
    ours, peer = (np.load(folder / f"{part}_{side}.npy") for side in ("ours", "peer"))
    if part.endswith("encode"):
        return {"share_of_equal_codes": float(np.mean(ours == peer))}
    n = peer.shape[1] // 2  # transformers' DAC has another end
    apart = np.abs(ours[:, :n] - peer[:, :n]).max()
    return {"largest_difference": float(apart), "deviation": float(peer.std())}


def _work(part: str, side: str, folder: Path, flags: argparse.Namespace) -> None:
    if side == "peer":
        import torch

        torch.set_num_threads(flags.threads)
    if part == "training":
        from jaxslm.benchmarks import codec_training

        if side == "ours":
            step = codec_training.our_step(flags.batch, flags.small)
        else:
            step = codec_training.peer_step(folder, flags.small)
        serve((lambda samples=samples: step(samples)) for samples in codec_training.clips(flags.batch))
        return
    code = {"ours": our_coding, "peer": peer_coding}[side](part, folder)

    def once() -> dict:
        np.save(folder / f"{part}_{side}.npy", code())
        return {}

    serve(once for _ in iter(int, 1))


def our_coding(part: str, folder: Path) -> Callable[[], np.ndarray]:
    """Codes, or samples, of {part}.npy by the codec in `folder`."""
    import jax

    from jaxslm.hf.codec import load_codec

    family, does = part.split("_")
    codec, given = load_codec(folder / family), np.load(folder / f"{part}.npy")
    run = jax.jit(lambda codec, given: getattr(codec, does)(given))
    return lambda: np.asarray(run(codec, given))


def peer_coding(part: str, folder: Path) -> Callable[[], np.ndarray]:
    """The same by transformers."""
    import torch
    import transformers

    family, does = part.split("_")
    given = torch.from_numpy(np.load(folder / f"{part}.npy"))
    model = {"dac": transformers.DacModel, "encodec": transformers.EncodecModel}[family]
    peer = model.from_pretrained(folder / family).eval()
    for module in peer.modules():
        if torch.nn.utils.parametrize.is_parametrized(module):
            torch.nn.utils.parametrize.remove_parametrizations(module, "weight")

    def work() -> torch.Tensor:
        if does == "encode":
            codes = peer.encode(given[:, None], bandwidth=peer.config.target_bandwidths[-1]).audio_codes
            return codes[0].permute(0, 2, 1)
        codes = given.permute(0, 2, 1).long()
        decoded = peer.decode(codes[None], [None]) if family == "encodec" else peer.decode(audio_codes=codes)
        return decoded.audio_values.reshape(1, -1)

    def once() -> np.ndarray:
        with torch.inference_mode():
            return work().numpy()

    return once


if __name__ == "__main__":
    run(sys.argv[1:])
