"""Compares the exported folder of a codec, as stock transformers loads it, with the run it came from.

Legend: N samples, T frames, Q codes of a frame.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.codec.codes import CodeSequence
from jaxslm.codec.identity import codec_sha256
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.hf.codec import load_codec
from jaxslm.tasks.codec import restore_codec

SECONDS = 2
LEAST_ALIKE = 0.99  # of the codes: frames between two codes fall either way
TOLERANCE = 1e-4  # of a sample, of the loudest
# Of the clip from its start: DAC loses samples at odd strides in transformers, and its last frames hear another end.
COMPARED = 0.5


def verify_codec(workdir: Path, folder: Path, step: int | None = None) -> str:
    """What was compared, for people: the hash of the codec that is read from `folder` with that of the run at `step`,
    codes and samples with those that transformers makes with the folder.

    Raises ValueError for whatever is not equal, and if transformers or torch is missing.
    """
    try:
        import torch
        from transformers import AutoModel
    except ImportError as error:
        raise ValueError(f"--verify needs torch and transformers ({error}): pip install -e '.[hf]'") from error
    (run, step), written = restore_codec(workdir, step), load_codec(folder)
    expected, found = codec_sha256(run), codec_sha256(written)
    if expected != found:
        raise ValueError(
            f"{folder} holds another codec ({found[:12]}) than step {step} of {workdir} ({expected[:12]}): "
            "name the step it is of by --step, or export to another folder"
        )
    peer = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    samples_N = chirp(run)
    runner = CodecRunner(run)
    ours = runner.encode([samples_N])[0]
    with torch.inference_mode():
        theirs_QxT = peer.encode(torch.tensor(samples_N)[None, None], **_all_levels(peer.config)).audio_codes
        theirs_TxQ = theirs_QxT.reshape(-1, theirs_QxT.shape[-1]).numpy().T
        codes_1xQxT = torch.tensor(ours.ids.T.astype(np.int64))[None]
        if peer.config.model_type == "encodec":
            made = peer.decode(audio_codes=codes_1xQxT[None], audio_scales=[None])
        else:
            made = peer.decode(audio_codes=codes_1xQxT)
        expected_N = made.audio_values.numpy().reshape(-1)
    half = round(COMPARED * len(samples_N))
    mine_N = runner.decode([CodeSequence(ours.ids, ours.frame_rate, len(samples_N))])[0]
    enough = len(expected_N) >= half
    difference = float(np.abs(mine_N[:half] - expected_N[:half]).max()) if enough else np.inf
    loudest = float(np.abs(mine_N).max())
    alike = float((ours.ids == theirs_TxQ).mean()) if theirs_TxQ.shape == ours.ids.shape else 0.0
    said = (
        f"read back, it is the same codec ({found[:12]}); in transformers {100 * alike:.2f} % of {ours.ids.size} codes "
        f"are alike, and samples differ by {difference:.1e} at most (the loudest is {loudest:.2g})"
    )
    if not (alike >= LEAST_ALIKE and difference <= TOLERANCE * max(1.0, loudest)):
        raise ValueError(f"{said}: NOT equal")
    return said


def chirp(codec: Codec) -> np.ndarray:
    """Two seconds of rising tones and noise, float32 [N] of whole frames."""
    n = SECONDS * codec.config.sample_rate // codec.hop * codec.hop
    time_N = np.arange(n) / codec.config.sample_rate
    tones = sum(np.sin(2 * np.pi * (f * time_N + 200 * k * time_N**2)) for k, f in enumerate((120, 410, 1300), 1))
    noise = np.random.default_rng(0).normal(size=n)
    return (0.1 * tones + 0.05 * noise * (1 + np.sin(9 * time_N))).astype(np.float32)


def _all_levels(config: Any) -> Mapping[str, Any]:
    return {"bandwidth": config.target_bandwidths[-1]} if config.model_type == "encodec" else {}
