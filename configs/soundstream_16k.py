"""SoundStream at 16 kHz, 50 frames a second, 8 levels of 1024: 4 kbps, causal (Zeghidour et al. 2021, sections III-
IV).

The default codec of this project. Strides 2, 4, 5, 8 as in the paper give 50 Hz at this rate, 75 at its 24 kHz. Hinge
losses, relative distances of features, mel distances of windows 64 to 2048; waveform discriminators at three rates
and one of the STFT. Where the paper's text leaves weights to be found (factors 1, 100 and 1 of losses whose scale it
does not fix), gradients are balanced 4 : 4 : 2, which EnCodec found to work; spectra have the energy of the samples.
The paper restarts codes that fewer than two frames of a batch take; Mimi's rule, here, does not depend on the batch's
size. Padding is with zeros, which streams from the first frame, and convolutions have weight norm.
"""

from configs import common
from jaxslm.codec.wave_discriminators import SOUNDSTREAM_SCALE


def get_config(arg: str = ""):
    config = common.codec()
    network = dict(kind="seanet", n_filters=32, ratios=(2, 4, 5, 8))
    quantizer = dict(kind="rvq", n_levels=8, codebook_size=1024, dropout=1.0)
    config.model.update(dim=512, encoder=dict(network), decoder=dict(network), quantizer=quantizer)
    common.balanced_losses(config)
    mel = dict(weight=2.0, form="soundstream", power=1, unit_energy=True)
    config.losses.update(spectral=dict(mel=mel), feature=dict(weight=4.0, form="relative"))
    config.discriminators.kinds = dict(scale=dict(layers=SOUNDSTREAM_SCALE), residual_stft=dict())
    config.average_decay = 0.999
    if arg == "tiny":
        common.tiny_codec(config)
        common.shrink(config, n_filters=8)
        config.model.quantizer.codebook_size = 256
        config.discriminators.kinds = dict(residual_stft=dict(channels=8))
    elif arg:
        raise ValueError(f"soundstream_16k knows the size 'tiny', not {arg!r}")
    return config
