"""The kinds of training, by the name that a config gives in `task`."""

from jaxslm.tasks import acoustic, codec, speech_text_lm, unit_vocoder

TASKS = {
    "speech_text_lm": speech_text_lm.make,
    "codec": codec.make,
    "acoustic": acoustic.make,
    "unit_vocoder": unit_vocoder.make,
}
