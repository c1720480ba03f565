"""Where codecs come from: the workdir of a training run, or a folder of Hugging Face weights."""

from pathlib import Path

from jaxslm.codec.model import Codec


def open_codec(place: Path) -> tuple[Codec, str]:
    """(the codec of a folder, its name for people). Raises ValueError where the folder is neither."""
    from jaxslm.tasks.codec import CODEC_FILE, load_run  # here: a Hugging Face folder needs nothing of training

    if (place / CODEC_FILE).is_file():
        return load_run(place), place.resolve().name
    if (place / "config.json").is_file():
        from jaxslm.hf.codec import load_codec

        return load_codec(place), place.resolve().name
    raise ValueError(
        f"{place} is no codec: name the workdir of a run with task='codec' ({CODEC_FILE}), or a folder of Hugging Face "
        "weights (config.json)"
    )
