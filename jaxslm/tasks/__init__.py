"""The kinds of training, by the name that a config gives in `task`."""

from jaxslm.tasks import acoustic, codec, speech_text_lm

TASKS = {"speech_text_lm": speech_text_lm.make, "codec": codec.make, "acoustic": acoustic.make}
