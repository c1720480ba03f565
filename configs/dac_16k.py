"""DAC at 16 kHz, 50 frames a second, 12 levels of 1024: 6 kbps (Kumar et al. 2023; conf/final/16khz.yml).

Factorised codes of 8 features looked up by their angle, learnt by gradient; discriminators of periods and of complex
bands hear levelled samples. Least squares, mel 15, features 2; the quantizer's losses are means over levels here and
sums there, hence the 12. AdamW 1e-4 (0.8, 0.99) falling by 0.999996 a step, 72 clips of 0.38 s. Not here: training
clips are not brought to -16 dB, nor shifted in phase.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.codec()
    encoder, decoder = (dict(kind="dac", channels=n, ratios=(2, 4, 5, 8)) for n in (64, 1536))
    quantizer = dict(
        kind="rvq", n_levels=12, codebook_size=1024, codebook_dim=8, projection="level", l2=True, learning="gradient",
        dropout=0.5,
    )  # fmt: skip
    config.model.update(dim=1024, encoder=encoder, decoder=decoder, quantizer=quantizer)
    config.discriminators.update(kinds=dict(period=dict(), band=dict()), level=True)
    config.losses.update(
        spectral=dict(mel=dict(weight=15.0, form="dac")),
        adversarial=dict(weight=1.0, form="least_squares", average=False, start=0, delay=0),
        feature=dict(weight=2.0, form="sum"),
        commitment=0.25 * 12,
        codebook=1.0 * 12,
    )
    adam = dict(
        peak_lr=1e-4, final_lr=1e-4 * 0.999996**400_000, schedule="exponential", b1=0.8, b2=0.99, weight_decay=0.01
    )
    config.optimizer.codec.update(adam, clip_norm=1e3)
    config.optimizer.discriminators.update(adam, clip_norm=10.0)
    config.data.update(seconds=0.38, batch_size=72)
    if arg == "tiny":
        common.tiny_codec(config)
        common.shrink(config, dim=128, channels=8)
        config.model.decoder.channels = 128
        config.model.quantizer.update(n_levels=8, codebook_size=256)
        config.discriminators.kinds = dict(period=dict(channels=(4, 8, 16)), band=dict(channels=4))
    elif arg:
        raise ValueError(f"dac_16k knows the size 'tiny', not {arg!r}")
    return config
