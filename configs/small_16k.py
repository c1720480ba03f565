"""A codec of a size for two CPU cores: 16 kHz, 50 frames a second, 8 levels of 1024, 4 kbps.

Not a published one. Encoder and decoder are ConvNeXt over spectra (Vocos, Siuzdak 2023, and its way back), so that all
is computed at the rate of the frames: after 2,000 steps held-out mel was 1.5, and 2.0 with SEANet's encoder (strides
4, 4, 4, 5). DAC's mel distance and an STFT distance, then small discriminators of periods and STFTs. The data are the
recordings named on the command line:
--config.data.sources="{'speech': {'kind': 'manifest', 'path': 'FOLDER'}}".
"""

from configs import common


def get_config(arg: str = ""):
    config = common.codec()
    network = dict(kind="vocos", hop=320, overlap=2, width=384, hidden=1152, n_layers=6, front=False, n_conditions=1)
    encoder, decoder = dict(network), dict(network, n_layers=8)
    # With .99 a code that no frame takes any more counts as dead only after 230 steps, and this run is short.
    quantizer = dict(kind="rvq", n_levels=8, codebook_size=1024, dropout=0.5, decay=0.95)
    config.model.update(dim=128, encoder=encoder, decoder=decoder, quantizer=quantizer)
    # Factors, not shares of the gradient: the balancer gives discriminators their full share before they know anything,
    # and at this length that undoes what was learnt (mel distance .24 -> .7 within 30 steps).
    scales = tuple((w, w // 4, w) for w in (2048, 1024, 512, 256))
    config.losses.update(
        spectral=dict(mel=dict(weight=15.0, form="dac"), stft=dict(weight=5.0, form="stft", scales=scales)),
        waveform=dict(weight=100.0, form="l1"),
        adversarial=dict(weight=1.0, form="least_squares", average=False, start=5000, delay=0),
        feature=dict(weight=2.0, form="sum"),
        commitment=1.0,
    )
    config.discriminators.update(
        kinds=dict(period=dict(channels=(4, 16, 64, 64)), stft=dict(windows=(1024, 256), channels=8, slope=0.3)),
        level=True,
    )
    betas = dict(b1=0.8, b2=0.99)
    config.optimizer.codec.update(peak_lr=1e-3, final_lr=1e-4, schedule="cosine", warmup_steps=50, **betas)
    config.optimizer.discriminators.update(peak_lr=5e-4, final_lr=5e-4, **betas)
    config.steps = 6000
    config.average_decay = 0.99
    config.checkpoint.every = 500
    config.eval.update(every=500, batches=8)
    config.data.update(sources=common.demo_speech(), seconds=1.0, batch_size=8)
    if arg == "tiny":
        common.tiny_codec(config)
        common.shrink(config, width=96, hidden=192, n_layers=3)
        config.model.quantizer.codebook_size = 256
        config.losses.adversarial.start = config.steps // 2
    elif arg:
        raise ValueError(f"small_16k and spectral_16k know the size 'tiny', not {arg!r}")
    return config
