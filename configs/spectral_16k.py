"""A codec for acoustic stages, whose codes carry no phases: 16 kHz, 50 frames a second, 4 levels of 1024, 2 kbps.

small_16k with an encoder that is not shown phases and no loss of the waveform, so that what sounds alike has the same
codes (Langman et al. 2024, arXiv 2406.05298, encode mel spectrograms for this reason). Of small_16k's first codes three
of four change when a recording is turned upside down, which nobody hears, and no stage can predict those.
"""

from configs import small_16k


def get_config(arg: str = ""):
    config = small_16k.get_config(arg)
    config.model.encoder.phase = False
    config.model.quantizer.n_levels = 4
    config.losses.waveform.weight = 0.0
    return config
