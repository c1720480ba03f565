"""SoundStream at 16 kHz, 50 frames a second, 8 levels of 1024: 4 kbps, causal (Zeghidour et al. 2021, sections III-IV).

The default codec of this project. Strides 2, 4, 5, 8 as in the paper give 50 Hz at this rate, 75 at its 24 kHz. Hinge
losses, features weighing 100, mel distances of windows 64 to 2048; waveform discriminators at three rates and one of
the STFT. The paper restarts codes that fewer than two frames of a batch take; ours takes Mimi's rule, which does not
depend on the size of the batch.
"""

from configs import common
from jaxslm.codec.wave_discriminators import SOUNDSTREAM_SCALE


def get_config(arg: str = ""):
    config = common.codec()
    config.model.update(
        dim=512,
        encoder=dict(kind="seanet", n_filters=32, ratios=(2, 4, 5, 8)),
        decoder=dict(kind="seanet", n_filters=32, ratios=(2, 4, 5, 8)),
        quantizer=dict(kind="rvq", n_levels=8, codebook_size=1024, dropout=1.0),
    )
    config.discriminators.kinds = dict(scale=dict(layers=SOUNDSTREAM_SCALE), residual_stft=dict())
    config.losses.update(balance=False)
    config.average_decay = 0.999
    if arg == "tiny":
        common.tiny_codec(config)
        config.model.update(dim=64)
        for part in (config.model.encoder, config.model.decoder):
            part.n_filters = 8
        config.model.quantizer.codebook_size = 256
        config.discriminators.kinds = dict(residual_stft=dict(channels=8))
    elif arg:
        raise ValueError(f"soundstream_16k knows the size 'tiny', not {arg!r}")
    return config
