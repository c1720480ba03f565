"""EnCodec at 24 kHz, 75 frames a second, 32 levels of 1024: 1.5 to 24 kbps, causal (Defossez et al. 2022).

Trained as audiocraft publishes it (config/solver/compression/encodec_base_24khz.yaml): gradients balanced 4 : 4 : 2 :
0.1 for adversarial, feature, mel and waveform losses, MS-STFT discriminator in five scales, Adam 3e-4 (0.5, 0.9), 64
clips of 1 s, mean of the weights. The network is that of the released weights (reflected padding, projected
shortcuts); audiocraft itself pads with zeros and skips plainly. Levels are drawn for each item where the paper draws a
bandwidth for each batch.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.codec()
    config.model.update(
        dim=128,
        encoder=common.encodec_network(),
        decoder=common.encodec_network(),
        quantizer=dict(kind="rvq", n_levels=32, codebook_size=1024, dropout=1.0),
    )
    common.balanced_losses(config)
    config.average_decay = 0.99
    config.data.update(sample_rate=24_000, seconds=1.0, batch_size=64)
    if arg == "tiny":
        common.tiny_codec(config)
        common.shrink(config, n_filters=8, lstm=1)
        config.model.quantizer.update(n_levels=8, codebook_size=256)
    elif arg:
        raise ValueError(f"encodec_24k knows the size 'tiny', not {arg!r}")
    return config
