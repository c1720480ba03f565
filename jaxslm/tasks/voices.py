"""What speaks, opened from its folder."""

from pathlib import Path

from jaxslm.acoustic.autoregressive_voice import AutoregressiveVoice
from jaxslm.acoustic.speaking import VocoderRunner
from jaxslm.acoustic.vocoder_voice import VocoderVoice
from jaxslm.generation.chain import Voice
from jaxslm.tasks import acoustic, own_voice
from jaxslm.tasks.acoustic_stage import CODEC, STAGE_FILE, load_stage
from jaxslm.tasks.base import UNITS
from jaxslm.tasks.codec_files import open_codec
from jaxslm.tasks.vocoder_files import VOCODER_FILE, load_vocoder
from jaxslm.units.inventory import UnitInventory


def open_voice(name: str | Path) -> Voice:
    """The voice of a run of the masked stage or of a unit vocoder, of two runs "COARSE,FINE", or the one that the run
    of a language model keeps.

    Raises ValueError where the folder is none of them.
    """
    places = [Path(place).expanduser() for place in str(name).split(",")]
    if len(places) == 2:
        return _open_pair(*places)
    (place,) = places[:1]
    if (place / acoustic.ACOUSTIC_FILE).is_file():
        return acoustic.load_run(place)
    if (place / VOCODER_FILE).is_file():
        vocoder, facts = load_vocoder(place)
        return VocoderVoice(VocoderRunner(vocoder, facts), UnitInventory.load(place / UNITS))
    if (place / own_voice.FACTS).is_file():
        return own_voice.open_own_voice(place)
    if (place / STAGE_FILE).is_file():
        raise ValueError(f"{place} is one of the two stages that speak together: name both by --acoustic=COARSE,FINE")
    raise ValueError(
        f"{place} is no run that speaks: train configs/soundstorm.py or configs/unit_hifigan.py there, with the units "
        "of the language model"
    )


def _open_pair(coarse: Path, fine: Path) -> AutoregressiveVoice:
    inventory, (codec, _) = UnitInventory.load(coarse / UNITS), open_codec(coarse / CODEC)
    voice = coarse / own_voice.VOICE
    durations = own_voice.open_own_voice(voice).model["durations"] if (voice / own_voice.FACTS).is_file() else None
    return AutoregressiveVoice(load_stage(coarse), load_stage(fine), inventory, codec, durations)
