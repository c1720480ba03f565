"""k-means on feature-like frames against scikit-learn's MiniBatchKMeans, at equal inertia.

The peer stops by its own rule and has the better of one thread and all. Ours is Lloyd's algorithm on all frames,
stopped by the first iteration whose inertia is no higher than the peer's of that round. Both start from nothing,
k-means++ included; our compilation is apart. Labelling all frames is measured beside it, against the peer's `predict`.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from jaxslm.benchmarks.measure import own_peak_memory_mib, report
from jaxslm.units.kmeans import assign, fit_kmeans

PEERS = {
    "default": {},
    "fairseq": dict(batch_size=10_000, max_no_improvement=100, reassignment_ratio=0.0),
}


def run(argv: list[str]) -> dict:
    """Measures both sides in turn; see `measure.report`."""
    parser = argparse.ArgumentParser(prog="bench.py kmeans")
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=39)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--peer", choices=PEERS, default="fairseq", help="its settings: its own, or those of fairseq")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    frames_NxD = _frames(args.frames, args.dim)
    fit_kmeans(frames_NxD, args.clusters, seed=0, iterations=0)
    rows = []
    for seed in range(args.rounds):  # alternating, so that a change of the machine's speed meets both
        model = MiniBatchKMeans(args.clusters, random_state=seed, n_init=1, compute_labels=False, **PEERS[args.peer])
        timed = []
        for threads in (1, os.cpu_count()):  # its threads wait by spinning: on a busy machine one is faster than two
            with threadpool_limits(threads):
                timed.append((*_seconds(model.fit, frames_NxD), *_seconds(model.predict, frames_NxD)))
        row = dict(zip(("peer_s", "peer_cpu_s", "peer_predict_s"), map(min, *timed), strict=False))
        centroids_KxD = model.cluster_centers_
        ids_N = assign(frames_NxD, centroids_KxD)
        row["assign_s"], _ = _seconds(assign, frames_NxD, centroids_KxD)
        row["peer_inertia"] = float(np.square(frames_NxD - centroids_KxD[ids_N]).sum() / args.frames)
        row["equal_labels"] = float(np.mean(ids_N == model.predict(frames_NxD)))
        inertia = fit_kmeans(frames_NxD, args.clusters, seed=seed).inertia
        enough = [i for i, value in enumerate(inertia) if value <= row["peer_inertia"]]
        row["iterations"] = enough[0] if enough else len(inertia) - 1
        options = dict(seed=seed, iterations=row["iterations"], tolerance=0.0)
        row["ours_s"], row["ours_cpu_s"] = _seconds(fit_kmeans, frames_NxD, args.clusters, **options)
        row["inertia"] = inertia[row["iterations"]]
        rows.append(row)
    median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return report(
        "kmeans",
        ours=args.frames / median["ours_s"],
        peer=args.frames / median["peer_s"],
        unit="frames/s, from nothing to equal inertia",
        shapes=vars(args),
        packages=("scikit-learn", "numpy"),
        peak_memory_mib={"ours": own_peak_memory_mib()},
        cpu_ratio=median["peer_cpu_s"] / median["ours_cpu_s"],
        inertia_over_peer=median["inertia"] / median["peer_inertia"],
        labels_per_s={
            "ours": args.frames / median["assign_s"],
            "peer": args.frames / median["peer_predict_s"],
            "equal": median["equal_labels"],
        },
        runs=rows,
    )


def _seconds(call: Callable, *args, **options) -> tuple[float, float]:
    """On the clock, and of all processors: the latter depends less on what else the machine does."""
    start = time.perf_counter(), time.process_time()
    call(*args, **options)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def _frames(n: int, dim: int) -> np.ndarray:
    """Frames as encoders give them: 1,500 modes of unequal weight in 24 directions, and noise in all."""
    rng = np.random.default_rng(0)
    modes, weights = rng.normal(size=(1500, 24)), rng.dirichlet(np.full(1500, 0.3))
    latent = modes[rng.choice(1500, n, p=weights)] + 0.4 * rng.normal(size=(n, 24))
    directions = rng.normal(size=(24, dim)) / np.sqrt(24)
    return (latent @ directions + 0.3 * rng.normal(size=(n, dim))).astype(np.float32)
