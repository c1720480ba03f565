"""A unit vocoder of the published size against torch on a CPU: waveforms of units.

Each side runs in a process of its own, and the two take steps in turn. Both read one file of random weights, as torch
writes it; samples are compared, so that the faster one is known to have done the same work. Weight norm is folded on
both sides.

    python launch/bench.py unit_vocoder --threads 2
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.benchmarks.measure import Side, report, serve

MODULE = "jaxslm.benchmarks.unit_vocoder"
FRAME_RATE, UNITS, SPEAKERS = 50, 100, 200
SETTINGS = dict(
    sampling_rate=16_000,
    code_hop_size=320,
    num_embeddings=UNITS,
    embedding_dim=128,
    multispkr="from_input_file",
    num_speakers=SPEAKERS,
    upsample_rates=[5, 4, 4, 2, 2],
    upsample_kernel_sizes=[11, 8, 8, 4, 4],
    upsample_initial_channel=512,
    resblock_kernel_sizes=[3, 7, 11],
    resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    dur_predictor_params=dict(var_pred_hidden_dim=128, var_pred_kernel_size=3, var_pred_dropout=0.5),
)


def run(argv: list[str]) -> dict[str, Any]:
    """Measures both sides; see `measure.report`. `cpu_ratio` is of CPU seconds."""
    flags = _flags(argv)
    if flags.worker:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.threads])
        _work(flags.worker, Path(flags.folder), flags)
        return {}
    settings = SETTINGS | (dict(upsample_initial_channel=32) if flags.small else {})
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), settings, flags)
        found = _measure(folder, argv, flags)
        ours, peer = (np.load(Path(folder) / f"{side}.npy") for side in ("ours", "peer"))
    seconds, cpu = found["seconds"], found["cpu_seconds"]
    audio = flags.rows * flags.seconds
    return report(
        "unit_vocoder",
        ours=audio / seconds["ours"],
        peer=audio / seconds["peer"],
        unit=f"x real time, float32, median of {flags.rounds}",
        peak_memory_mib=found["peak_memory_mib"],
        shapes={name: value for name, value in vars(flags).items() if name not in ("worker", "folder")},
        packages=("jax", "flax", "torch"),
        seconds=seconds,
        cpu_seconds=cpu,
        cpu_ratio=cpu["peer"] / cpu["ours"],
        agreement=dict(largest_difference=float(np.abs(ours - peer).max()), deviation=float(peer.std())),
        load=os.getloadavg()[0],
    )


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py unit_vocoder", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio of a row")
    parser.add_argument("--rows", type=int, default=1, help="of the batch, all of one length")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="a narrow model, to try the program")
    parser.add_argument("--worker", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _write(folder: Path, settings: dict, flags: argparse.Namespace) -> None:
    """A published file of random weights (g_0, config.json) and units.npy."""
    import torch

    from jaxslm.benchmarks.vocoder_torch import TorchVocoder

    torch.manual_seed(0)
    state = TorchVocoder(settings).published_state()
    state["conv_post.weight_g"] = 50 * state["conv_post.weight_g"]  # random layers make whispers of less and less
    torch.save({"generator": state}, folder / "g_0")
    (folder / "config.json").write_text(json.dumps(settings))
    shape = flags.rows, round(flags.seconds * FRAME_RATE)
    np.save(folder / "units.npy", np.random.default_rng(0).integers(0, UNITS, shape).astype(np.int32))


def _measure(folder: str, argv: list[str], flags: argparse.Namespace) -> dict[str, Any]:
    environment = {"JAX_PLATFORMS": "cpu"}
    sides = {
        name: Side(MODULE, [*argv, f"--folder={folder}", "--worker", name], environment) for name in ("ours", "peer")
    }
    steps: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(flags.warmup + flags.rounds):
        for name, side in sides.items():
            steps[name].append(side.step())
    medians = {
        key: {name: statistics.median(step[key] for step in own[flags.warmup :]) for name, own in steps.items()}
        for key in ("seconds", "cpu_seconds")
    }
    return medians | {"peak_memory_mib": {name: side.finish()["peak_memory_mib"] for name, side in sides.items()}}


def _work(side: str, folder: Path, flags: argparse.Namespace) -> None:
    speak = {"ours": our_speech, "peer": peer_speech}[side](folder, flags.threads)

    def once() -> dict:
        np.save(folder / f"{side}.npy", speak())
        return {}

    serve(once for _ in iter(int, 1))


def our_speech(folder: Path, threads: int) -> Callable[[], np.ndarray]:
    """Samples [B, N] of units.npy by the vocoder in `folder`, all of speaker 1."""
    import jax

    from jaxslm.acoustic.vocoder import Conditions
    from jaxslm.hf.vocoder import load_vocoder_file

    model, units = load_vocoder_file(folder / "g_0")[0], np.load(folder / "units.npy")
    speaker_B = np.ones(len(units), np.int32)
    run = jax.jit(lambda model, units, speaker_B: model(units, None, Conditions(speaker_B=speaker_B)))
    return lambda: np.asarray(run(model, units, speaker_B))


def peer_speech(folder: Path, threads: int) -> Callable[[], np.ndarray]:
    """The same by torch."""
    import torch

    from jaxslm.benchmarks.vocoder_torch import TorchVocoder

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    state = torch.load(folder / "g_0", weights_only=True)["generator"]
    model = TorchVocoder(json.loads((folder / "config.json").read_text())).eval()
    renamed = {
        name.replace(".weight_g", f"{_KERNEL}0").replace(".weight_v", f"{_KERNEL}1"): value
        for name, value in state.items()
    }
    model.load_state_dict(renamed)
    for module in model.modules():
        if torch.nn.utils.parametrize.is_parametrized(module):
            torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    units = torch.from_numpy(np.load(folder / "units.npy")).long()

    def once() -> np.ndarray:
        with torch.inference_mode():
            return model(units, spkr=torch.ones(len(units), dtype=torch.long)).numpy()

    return once


_KERNEL = ".parametrizations.weight.original"


if __name__ == "__main__":
    run(sys.argv[1:])
