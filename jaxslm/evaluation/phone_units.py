"""How well units tell phones apart, and what they cost: purity, PNMI, usage and bitrate.

Shape letters: P phones, K units.
"""

from collections.abc import Sequence

import numpy as np

from jaxslm.units.units import UnitSequence, deduplicate


def phone_unit_metrics(counts_PxK: np.ndarray) -> dict[str, float]:
    """Agreement of phones and units from the number of frames that have both (HuBERT, Hsu et al. 2021, section 4.6).

    phone_purity: share of the frames whose phone is the most frequent one of their unit. cluster_purity: share whose
    unit is the most frequent one of their phone. pnmi: I(phone; unit) / H(phone), how much of the uncertainty about
    the phone the unit takes away.

    Raises:
      ValueError: no frames, or all of one phone, where PNMI is not defined.
    """
    total = counts_PxK.sum()
    joint_PxK = counts_PxK / max(total, 1)
    phone_P, unit_K = joint_PxK.sum(axis=1), joint_PxK.sum(axis=0)
    if total == 0 or np.count_nonzero(phone_P) < 2:
        raise ValueError(f"{int(total)} frames of {np.count_nonzero(phone_P)} phones: nothing can be told apart")
    phone_nats = entropy(phone_P)
    information = phone_nats + entropy(unit_K) - entropy(joint_PxK.ravel())
    return dict(
        phone_purity=float(joint_PxK.max(axis=0).sum()),
        cluster_purity=float(joint_PxK.max(axis=1).sum()),
        pnmi=information / phone_nats,
        frames=int(total),
        phones=int(np.count_nonzero(phone_P)),
    )


def unit_metrics(sequences: Sequence[UnitSequence], size: int) -> dict[str, float]:
    """Use of K = size units, and bits a second with a number a frame and with runs joined.

    usage: share of the units that occur. perplexity: exp of the entropy of the units of frames. bitrate: log2 K a unit;
    entropy_bitrate: the entropy of single units instead, what an ideal code that knows only their frequencies needs.
    "deduplicated" leaves the durations out of the count. dedup_factor: frames a run.

    Raises:
      ValueError: no units.
    """
    sequences = [units for units in sequences if len(units)]
    if not sequences:
        raise ValueError("there are no units to measure")
    seconds = sum(units.seconds for units in sequences)
    frames = [units.expand() for units in sequences]  # of any inventory: its runs may be joined already or not
    frames_N = np.concatenate(frames)
    runs_N = np.concatenate([deduplicate(ids_T, 1.0).ids for ids_T in frames])
    frame_nats = entropy(np.bincount(frames_N, minlength=size) / len(frames_N))
    run_nats = entropy(np.bincount(runs_N, minlength=size) / len(runs_N))
    return dict(
        size=size,
        usage=len(np.unique(frames_N)) / size,
        perplexity=float(np.exp(frame_nats)),
        bitrate=len(frames_N) / seconds * float(np.log2(size)),
        entropy_bitrate=len(frames_N) / seconds * frame_nats / float(np.log(2)),
        deduplicated_bitrate=len(runs_N) / seconds * float(np.log2(size)),
        deduplicated_entropy_bitrate=len(runs_N) / seconds * run_nats / float(np.log(2)),
        dedup_factor=len(frames_N) / len(runs_N),
        units_per_second=len(runs_N) / seconds,
        seconds=seconds,
    )


def entropy(probabilities: np.ndarray) -> float:
    """In nats."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())
