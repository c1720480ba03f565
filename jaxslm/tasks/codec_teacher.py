"""The teacher of a codec's first codes, as `losses.distil` names it."""

import math
from collections.abc import Mapping
from typing import Any

from jaxslm.codec.distillation import FORMS, LOG_MEL, Distillation, LogMel
from jaxslm.codec.model import Codec
from jaxslm.hf.speech import load_speech_encoder


def open_teacher(settings: Mapping[str, Any], codec: Codec) -> tuple[Distillation, Any]:
    """(distillation, teacher) of `losses.distil`: `teacher` is a folder as `load_speech_encoder` takes it, of which
    `layer` is heard, or the mean over `all_layers`; or "log_mel".

    Raises ValueError for a form that there is not, and frame rates that do not fit.
    """
    if settings["form"] not in FORMS:
        raise ValueError(f"losses.distil.form is '{settings['form']}'; use one of {', '.join(FORMS)}")
    if not settings["teacher"]:
        raise ValueError(
            "losses.distil.weight is above 0 and losses.distil.teacher is empty: name the folder of a speech encoder "
            f"(HuBERT, WavLM...), or '{LOG_MEL}'"
        )
    if settings["teacher"] == LOG_MEL:
        teacher = LogMel()
        rate, dim = teacher.frame_rate, teacher.dim
    else:
        teacher = load_speech_encoder(settings["teacher"], layer=settings["layer"], all_layers=settings["all_layers"])
        rate, dim = teacher.config.frame_rate, teacher.config.d_model
    pool = round(rate / codec.frame_rate)
    if pool < 1 or not math.isclose(pool * codec.frame_rate, rate, rel_tol=1e-3):
        raise ValueError(
            f"losses.distil.teacher makes {rate:g} frames a second and the codec {codec.frame_rate:g}: the first must "
            "be a multiple of the second; take another teacher, or other ratios"
        )
    n_levels = getattr(codec.quantizer.config, "n_semantic", 1) if codec.quantizer.config.kind == "split_rvq" else 1
    return Distillation(settings["form"], n_levels, codec.config.sample_rate, pool, dim), teacher
