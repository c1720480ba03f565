"""BigCodec at 16 kHz: 80 frames a second of one code out of 8192, 1.04 kbps, 159M parameters (Xin et al. 2024;
config/model/default.yaml, config/train/default.yaml).

DAC's network with alias-free SnakeBeta and LSTMs; one factorised code of 8 features looked up by its angle. Mel 15,
features 1, commitment 0.25 (the STFT loss of its settings is never computed in its code); discriminators of periods and
STFTs. AdamW (0.8, 0.9) from 1e-4 to 1e-5 over 500k steps of 1.2M (linear there; here over all steps). Its STFT
discriminator hears magnitudes, ours (EnCodec's) the complex transform.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.codec()
    network = dict(kind="dac", channels=48, ratios=(2, 2, 2, 5, 5), activation="snakebeta", alias_free=True, lstm=2)
    quantizer = dict(
        kind="rvq", n_levels=1, codebook_size=8192, codebook_dim=8, projection="level", l2=True, learning="gradient"
    )
    config.model.update(dim=1024, encoder=dict(network), decoder=dict(network, channels=1536), quantizer=quantizer)
    config.losses.update(
        spectral=dict(mel=dict(weight=15.0, form="dac")),
        adversarial=dict(weight=1.0, form="least_squares", average=False, start=0, delay=0),
        feature=dict(weight=1.0, form="sum"),
        commitment=0.25,
        codebook=1.0,
    )
    config.discriminators.kinds = dict(
        period=dict(channels=(16, 64, 256, 512, 512)), stft=dict(windows=(128, 256, 512, 1024, 2048))
    )
    adam = dict(peak_lr=1e-4, final_lr=1e-5, schedule="linear", warmup_steps=1000, b1=0.8, b2=0.9, weight_decay=0.01)
    config.optimizer.codec.update(adam, clip_norm=1.0)
    config.optimizer.discriminators.update(adam, clip_norm=1.0)
    config.steps = 600_000
    config.data.update(seconds=1.0, batch_size=8)
    if arg == "tiny":
        common.tiny_codec(config)
        common.shrink(config, channels=8, lstm=1, ratios=(4, 5, 10), dilations=(1, 3))  # minutes less to compile
        config.model.decoder.channels = 128
        config.model.quantizer.codebook_size = 256
        config.discriminators.kinds = dict(stft=dict(windows=(512, 256), channels=8))
        for part in (config.optimizer.codec, config.optimizer.discriminators):
            part.warmup_steps = 10
    elif arg:
        raise ValueError(f"bigcodec_16k knows the size 'tiny', not {arg!r}")
    return config
