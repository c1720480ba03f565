"""The runs of launch/evidence.py: which arms of which recipe, and what is shown of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxslm.evaluation.suites.storycloze import MODES

CURVES = {f"suite/cloze/mode={mode}/sum": mode for mode in MODES}


def _accuracies(**suites: str) -> dict:
    """suites: name -> heading."""
    return {
        about: {f"{suite}/{kind}/mode={mode}": f"{mode} {kind}" for kind in ("sum", "mean") for mode in MODES}
        for suite, about in suites.items()
    }


def _errors(**sources: str) -> dict:
    """sources: name -> heading."""
    return {
        f"word error rates, {about}": {
            f"{source}/asr/asr/wer": "ASR",
            f"{source}/tts/spoken/wer": "TTS",
            f"{source}/tts/resynthesis/wer": "TTS of the true units",
            f"{source}/tts/recordings/wer": "recordings",
        }
        for source, about in sources.items()
    }


ACCURACIES = _accuracies(storycloze="synthetic stories", prompts="halves of recorded prompts")
ERRORS = _errors(stories="synthetic stories", prompts="recorded prompts")
LOSSES = {
    "held-out losses": {f"loss/{name}": f"{name} loss" for name in ("text", "speech", "interleaved", "asr", "tts")}
}
FORGOTTEN = {
    "text, before (the run `text`) and after": {
        f"forgetting/{when}/{name}": f"{about} {when}"
        for name, about in (("nats_per_token", "nats a token"), ("accuracy_sum", "accuracy"))
        for when in ("before", "after")
    }
}


@dataclass(frozen=True)
class Run:
    """recipe: configs/RECIPE.py; tables: heading -> figures (key of a held-out row -> name); curves: figures that are
    drawn by step; counted: arms whose word errors are counted."""

    arms: Sequence[str]
    tables: Mapping[str, Mapping[str, str]]
    curves: Mapping[str, str]
    counted: Sequence[str] = ()
    recipe: str = "evidence"


RUNS = {
    "A": Run(("interleaved", "control"), ACCURACIES | LOSSES, CURVES),
    "F": Run(("interleaved", "control", "shuffled_units", "shuffled_times"), ACCURACIES | LOSSES, CURVES),
    "B": Run(("asr_tts", "interleaved"), ERRORS | ACCURACIES | LOSSES, CURVES, counted=("asr_tts", "interleaved")),
    "C": Run(
        ("text", "cold", "warm", "twist"),
        ACCURACIES | LOSSES | FORGOTTEN,
        {"loss/speech": "speech loss", "suite/cloze/mode=S/sum": "S"},
    ),
    "D": Run(
        ("text", "replay_0", "replay_10", "replay_30"),
        FORGOTTEN | ACCURACIES | LOSSES,
        {"loss/speech": "speech loss", "suite/cloze/mode=T/sum": "T", "suite/cloze/mode=S/sum": "S"},
    ),
    "E": Run(
        (
            *("mfcc_100", "mfcc_500", "mfcc_1000", "mfcc_100_frames"),
            *("whisper_100", "whisper_500", "whisper_1000", "whisper_500_frames"),
        ),
        ACCURACIES | {"held-out loss": {"loss/text": "text loss"}},  # others are of other units, and not comparable
        CURVES,
    ),
    "R": Run(
        ("real_cold", "real_warm"),
        {"held-out loss": {"loss": "nats a unit"}},
        {"loss": "speech loss"},
        recipe="evidence_twist",
    ),
    "L": Run(
        ("large_interleaved", "large_control", "large_asr_tts"),
        ACCURACIES
        | _accuracies(recordings="halves of recordings")
        | ERRORS
        | _errors(recordings="recordings")
        | LOSSES,
        CURVES,
        counted=("large_interleaved", "large_asr_tts"),
        recipe="evidence_large",
    ),
}
