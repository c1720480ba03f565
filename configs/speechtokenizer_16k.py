"""SpeechTokenizer at 16 kHz: 50 frames a second, 8 levels of 1024, the first of which learns from HuBERT: 4 kbps
(Zhang et al. 2023; config/spt_base_cfg.json and trainer/trainer.py).

Waveform 500, mels of windows 1024, 512, 256 and 128 weighing 45, 1, 1 and 1, commitment 10, distillation 120 by
dimension, from the mean over all layers of HuBERT; discriminators of periods, scales and STFTs, least squares. Not
here: the decay by epochs.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.codec()
    network = common.encodec_network(n_filters=64, causal=False)
    config.model.update(
        dim=1024,
        encoder=dict(network, bidirectional=True),
        decoder=dict(network),
        quantizer=dict(kind="rvq", n_levels=8, codebook_size=1024),
    )
    mels = {f"mel_{1024 // d}": dict(form="log_mel", window=1024 // d, hop=240 // d, weight=w) for d, w in _MELS}
    config.losses.update(
        spectral={name: dict(mel, n_mels=80, htk=True, framing="whole") for name, mel in mels.items()},
        waveform=dict(weight=500.0, form="l1"),
        adversarial=dict(weight=1.0, form="least_squares", average=False, start=0, delay=0),
        feature=dict(weight=2.0, form="sum"),
        commitment=10.0,
    )
    config.losses.distil.update(weight=120.0, form="dimension", teacher="data/hubert-base-ls960", all_layers=True)
    config.discriminators.kinds = dict(period=dict(), scale=dict(), stft=dict(windows=(1024, 2048, 512)))
    for adam in (config.optimizer.codec, config.optimizer.discriminators):
        adam.update(peak_lr=1e-4, final_lr=1e-6, schedule="cosine", b1=0.9, b2=0.99)
    config.data.update(seconds=3.0, batch_size=6)
    if arg == "tiny":
        common.tiny_codec(config)
        common.shrink(config, n_filters=8, lstm=1)
        config.model.quantizer.codebook_size = 256
        config.losses.distil.teacher = "log_mel"
        config.discriminators.kinds = dict(stft=dict(windows=(512, 256), channels=8))
    elif arg:
        raise ValueError(f"speechtokenizer_16k knows the size 'tiny', not {arg!r}")
    return config


_MELS = ((1, 45.0), (2, 1.0), (4, 1.0), (8, 1.0))  # divisor of window and hop, weight
