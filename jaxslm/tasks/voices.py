"""What speaks, opened from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxslm.acoustic.autoregressive_voice import AutoregressiveVoice
from jaxslm.acoustic.speaking import VocoderRunner
from jaxslm.acoustic.vocoder_voice import VocoderVoice
from jaxslm.generation.chain import Voice
from jaxslm.tasks import acoustic, own_voice
from jaxslm.tasks.acoustic_stage import CODEC, STAGE_FILE, load_stage
from jaxslm.tasks.base import UNITS
from jaxslm.tasks.codec_files import open_codec
from jaxslm.tasks.vocoder_files import VOCODER_FILE, load_vocoder, open_vocoder
from jaxslm.units.inventory import UnitInventory


def open_voice(name: str | Path, unmasking: Mapping[str, Any] = {}) -> Voice:
    """The voice of a run of the masked stage or of a unit vocoder, of two runs "COARSE,FINE", or the one that the run
    of a language model keeps, or a published vocoder.

    unmasking: fields of `Unmasking`, of a masked stage.
    Raises ValueError where the folder is none of them.
    """
    place = Path(name).expanduser()
    parts = [Path(part).expanduser() for part in str(name).split(",")]
    if len(parts) == 2 and not place.exists():
        return _open_pair(*parts)
    if is_masked(place):
        return acoustic.load_run(place, unmasking=unmasking)
    if unmasking:
        raise ValueError(f"{place} is no masked stage, and has no {' and no '.join(unmasking)}: leave it out")
    if (place / VOCODER_FILE).is_file():
        vocoder, facts = load_vocoder(place)
        return VocoderVoice(VocoderRunner(vocoder, facts), UnitInventory.load(place / UNITS))
    if (place / own_voice.FACTS).is_file():
        return own_voice.open_own_voice(place)
    if (place / STAGE_FILE).is_file():
        raise ValueError(f"{place} is one of the two stages that speak together: name both by --acoustic=COARSE,FINE")
    if place.is_file() or (place / "config.json").is_file() and not (place / "checkpoints").is_dir():
        return VocoderVoice(VocoderRunner(*open_vocoder(place)), None)
    raise ValueError(
        f"{place} is no run that speaks: train configs/soundstorm.py or configs/unit_hifigan.py there, with the units "
        "of the language model"
    )


def is_masked(name: str | Path) -> bool:
    """Whether the folder is a run of the masked stage."""
    return (Path(name).expanduser() / acoustic.ACOUSTIC_FILE).is_file()


def _open_pair(coarse: Path, fine: Path) -> AutoregressiveVoice:
    inventory, (codec, _) = UnitInventory.load(coarse / UNITS), open_codec(coarse / CODEC)
    voice = coarse / own_voice.VOICE
    durations = own_voice.open_own_voice(voice).model["durations"] if (voice / own_voice.FACTS).is_file() else None
    return AutoregressiveVoice(load_stage(coarse), load_stage(fine), inventory, codec, durations)
