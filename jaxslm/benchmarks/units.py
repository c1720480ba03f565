"""Speech into units: HuBERT-base up to a layer, then the nearest of K centroids; ours against transformers and sklearn.

Random weights in the shape of HuBERT-base, written as a Hugging Face folder; both sides start from samples and end with
a unit a frame. The peer is run as it mostly is, `output_hidden_states=True` (which computes all twelve layers), and
with the layers above cut off; features go to `KMeans.predict`. The sides alternate. On a GPU ours runs alone, in
bfloat16: x real time is then hours of audio an hour.

    python launch/bench.py units
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.benchmarks.measure import report
from jaxslm.units.encoders import load_encoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.neural_encoder import NeuralEncoder

PREPROCESSOR = {"do_normalize": True, "sampling_rate": SAMPLE_RATE, "feature_size": 1, "padding_value": 0.0}


def run(argv: list[str]) -> dict:
    """Measures both sides at each layer; see `measure.report`; `ratio` is the lowest against `output_hidden_states`."""
    flags = _flags(argv)
    rng = np.random.default_rng(0)
    n = round(flags.seconds * SAMPLE_RATE)
    clips = [rng.normal(scale=0.1, size=n).astype(np.float32) for _ in range(flags.clips)]
    with tempfile.TemporaryDirectory() as folder:
        _write_model(Path(folder), flags.small)
        found = {layer: _measure(folder, layer, clips, flags) for layer in flags.layers}
    peers = [name for name in ("peer", "peer cut") if all(name in times for times, _ in found.values())]
    speeds = {
        f"{name}, layer {layer}": flags.clips * flags.seconds / statistics.median(seconds)
        for layer, (times, _) in found.items()
        for name, seconds in times.items()
    }
    ratios = {
        f"{peer}, layer {layer}": speeds[f"ours, layer {layer}"] / speeds[f"{peer}, layer {layer}"]
        for peer in peers
        for layer in flags.layers
    }
    worst = min(flags.layers, key=lambda layer: ratios.get(f"peer, layer {layer}", -layer))
    return report(
        "units",
        ours=speeds[f"ours, layer {worst}"],
        peer=speeds.get(f"peer, layer {worst}"),
        unit=f"x real time to layer {worst}, {flags.dtype}, median of {flags.rounds}",
        shapes=vars(flags) | {"device": jax.devices()[0].device_kind},
        packages=("jax", *(("torch", "transformers", "scikit-learn") if peers else ())),
        x_real_time=speeds,
        ratios=ratios,
        load=os.getloadavg()[0],
        **{f"layer {layer}": details for layer, (_, details) in found.items()},
    )


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py units", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument("--layers", type=int, nargs="+", default=[9, 6])
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--clips", type=int, default=6 if on_cpu else 512)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a clip")
    parser.add_argument("--dtype", default="float32" if on_cpu else "bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a model of two narrow layers, to try the program")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=on_cpu)
    return parser.parse_args(argv)


def _write_model(folder: Path, small: bool) -> None:
    import transformers

    size = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, conv_dim=(32,) * 7)
    size = size if small else {}
    transformers.HubertModel(transformers.HubertConfig(**size)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def _measure(folder: str, layer: int, clips: list[np.ndarray], flags: argparse.Namespace) -> tuple[dict, dict]:
    """Seconds of each round by side, and what else there is to say of ours."""
    encoder = load_encoder(folder, layer, flags.dtype)
    frames_NxD = np.concatenate(encoder.encode(clips)).astype(np.float32)
    chosen = np.random.default_rng(1).choice(len(frames_NxD), flags.clusters, replace=False)
    centroids_KxD = frames_NxD[chosen]
    units = UnitInventory(**encoder.identity, centroids=centroids_KxD, size=flags.clusters, deduplicated=False)

    def ours() -> np.ndarray:
        return np.concatenate([sequence.ids for sequence in units.encode_batch(clips)])

    sides = {"ours": ours, "encoder": _encoder_alone(encoder, clips)}
    if flags.peer:
        sides |= _peers(folder, layer, clips, centroids_KxD)
    labels = {name: side() for name, side in sides.items()}  # compiles and warms up
    times, processor = {name: [] for name in sides}, {name: [] for name in sides}
    for _ in range(flags.rounds):
        for name, side in sides.items():
            start = time.perf_counter(), time.process_time()
            side()
            times[name].append(time.perf_counter() - start[0])
            processor[name].append(time.process_time() - start[1])
    alone, whole = statistics.median(times.pop("encoder")), statistics.median(times["ours"])
    details = {
        "share_outside_encoder": 1 - alone / whole,
        "processor_s": {name: statistics.median(seconds) for name, seconds in processor.items()},
    }
    if flags.peer:
        details["equal_units"] = float(np.mean(labels["ours"] == labels["peer"]))
    return times, details


def _encoder_alone(encoder: NeuralEncoder, clips: list[np.ndarray]) -> Callable:
    """The same batches, on the device already, and left there."""
    batches = []
    for _, (rows, bucket) in encoder._batches([len(clip) for clip in clips]):
        samples_BxN = np.pad(np.stack(clips[:1] * rows), ((0, 0), (0, bucket - len(clips[0]))))
        batches.append((jnp.asarray(samples_BxN), jnp.full(rows, len(clips[0]), jnp.int32)))
    return lambda: jax.block_until_ready([encoder._run(encoder.model, *batch, None) for batch in batches])


def _peers(folder: str, layer: int, clips: list[np.ndarray], centroids_KxD: np.ndarray) -> dict[str, Callable]:
    import torch
    import transformers
    from sklearn.cluster import KMeans

    transformers.logging.set_verbosity_error()  # else it lists the layers that are cut off
    extractor = transformers.Wav2Vec2FeatureExtractor(**PREPROCESSOR)
    whole = transformers.HubertModel.from_pretrained(folder).eval()
    cut = transformers.HubertModel.from_pretrained(folder, num_hidden_layers=layer).eval()
    kmeans = KMeans(len(centroids_KxD), init=centroids_KxD, n_init=1, max_iter=1).fit(centroids_KxD)
    kmeans.cluster_centers_ = centroids_KxD

    def label(features: Callable) -> np.ndarray:
        with torch.inference_mode():
            inputs = [extractor(clip, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values for clip in clips]
            return np.concatenate([kmeans.predict(features(samples_1xN)[0].numpy()) for samples_1xN in inputs])

    return {
        "peer": lambda: label(lambda samples: whole(samples, output_hidden_states=True).hidden_states[layer]),
        "peer cut": lambda: label(lambda samples: cut(samples).last_hidden_state),
    }
