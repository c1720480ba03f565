"""What speaks, opened from its folder."""

from pathlib import Path

from jaxslm.generation.chain import Voice
from jaxslm.tasks import acoustic, own_voice


def open_voice(workdir: Path) -> Voice:
    """The voice of a run of an acoustic stage or of a unit vocoder, or the one that a language model's run keeps.

    Raises ValueError where the folder is none of them.
    """
    if (workdir / acoustic.ACOUSTIC_FILE).is_file():
        return acoustic.load_run(workdir)
    if (workdir / own_voice.FACTS).is_file():
        return own_voice.open_own_voice(workdir)
    raise ValueError(
        f"{workdir} is no run that speaks: train configs/soundstorm.py or configs/unit_hifigan.py there, with the "
        "units of the language model"
    )
