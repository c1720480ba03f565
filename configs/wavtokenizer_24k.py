"""WavTokenizer at 24 kHz: 75 frames a second of one code out of 4096, 0.9 kbps (Ji et al. 2024;
configs/wavtokenizer_smalldata_frame75_3s_nq1_code4096_dim512_kmeans200_attn.yaml, decoder/experiment.py).

EnCodec's encoder without causality, one VQ initialised by 200 iterations of k-means, a decoder of attention, ConvNeXt
and an inverse STFT. Log mel 45, commitment 1000, discriminators of periods, of magnitudes and DAC's (here its bands
of the complex STFT serve for both). Each kind's losses are its mean there; a quarter of the sum over five periods and
three transforms is as much. AdamW 2e-4 (0.9, 0.999), cosine, 40 clips of 3 s, 1M steps.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.codec()
    config.model.update(
        dim=512,
        encoder=common.encodec_network(causal=False),
        decoder=dict(kind="vocos", hop=320, width=768, hidden=2304, n_layers=12),
        quantizer=dict(kind="rvq", n_levels=1, codebook_size=4096, kmeans_iterations=200),
    )
    mel = dict(weight=45.0, form="log_mel", window=1024, hop=256, n_mels=100, htk=True, equal_area=False, floor=1e-7)
    config.losses.update(
        spectral=dict(mel=mel),
        adversarial=dict(weight=0.25, form="clipped_hinge", average=False, start=0, delay=0),
        feature=dict(weight=0.25, form="sum"),
        commitment=1000.0,
    )
    config.discriminators.kinds = dict(period=dict(), band=dict())
    for adam in (config.optimizer.codec, config.optimizer.discriminators):
        adam.update(peak_lr=2e-4, final_lr=0.0, schedule="cosine", b1=0.9, b2=0.999, weight_decay=0.01)
    config.steps = 1_000_000
    config.data.update(sample_rate=24_000, seconds=3.0, batch_size=40)
    if arg == "tiny":
        common.tiny_codec(config)
        config.model.update(dim=64)
        config.model.encoder.update(n_filters=8, lstm=1)
        config.model.decoder.update(width=96, hidden=192, n_layers=3)
        config.model.quantizer.codebook_size = 256
        config.discriminators.kinds = dict(band=dict(channels=4))
    elif arg:
        raise ValueError(f"wavtokenizer_24k knows the size 'tiny', not {arg!r}")
    return config
