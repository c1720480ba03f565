"""A codec for the masked acoustic stage, whose codes carry no phases: 16 kHz, 50 frames a second, 4 levels of 1024.

small_16k with an encoder that is not shown phases and no loss of the waveform: codes that a stage is to predict should
not tell what nobody hears (Langman et al. 2024, arXiv 2406.05298, encode mel spectrograms for this reason). Turned
upside down, a recording has the same codes; of small_16k's first codes three of four change.
"""

from configs import small_16k


def get_config(arg: str = ""):
    config = small_16k.get_config(arg)
    with config.unlocked():
        config.model.encoder.phase = False
    config.model.quantizer.n_levels = 4
    config.losses.waveform.weight = 0.0
    return config
