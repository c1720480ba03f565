"""Mimi, the codec of Moshi, at 24 kHz: 12.5 frames a second, 1 semantic and 7 acoustic levels of 2048, 1.1 kbps, causal
(Defossez et al. 2024, section 3.3; moshi/models/loaders.py).

SEANet, a transformer of 8 layers that looks back 250 frames, and learnt resampling from 25 Hz on each side. Only
adversarial and feature losses; the mel distance is measured, not trained by. The semantic level learns from WavLM,
frame by frame. Half of the items pass unquantized. No training code is public: weights of the losses are those of
EnCodec's balancer, the weight of the distillation is ours. Steps, batches, lengths of clips and the codec's rate as in
the paper (4M, 128 x 12 s, AdamW 8e-4); its weight decay of 0.05 acts on convolutions here too.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.codec()
    network = dict(
        kind="seanet", n_filters=64, ratios=(4, 5, 6, 8), last_kernel=3, n_residual=1, residual_kernel=3,
        dilation_base=2, compress=2, transformer=dict(n_layers=8, n_heads=8, d_ff=2048, window=250), downsample=2,
    )  # fmt: skip
    quantizer = dict(
        kind="split_rvq", n_levels=8, n_semantic=1, codebook_size=2048, codebook_dim=256, projection="shared",
        dropout=1.0, no_quantization_rate=0.5,
    )  # fmt: skip
    config.model.update(dim=512, encoder=dict(network), decoder=dict(network), quantizer=quantizer)
    common.balanced_losses(config)
    config.losses.spectral.mel.weight = 0.0
    config.losses.waveform.weight = 0.0
    config.losses.distil.update(weight=1.0, form="frame", teacher="data/wavlm-large", layer=-1)
    config.average_decay = 0.99
    config.steps = 4_000_000
    config.optimizer.codec.update(peak_lr=8e-4, final_lr=8e-4, weight_decay=0.05)
    config.data.update(sample_rate=24_000, seconds=12.0, batch_size=128)
    if arg == "tiny":
        common.tiny_codec(config)
        config.losses.adversarial.update(start=0, delay=0)  # there is nothing else to train by
        common.shrink(config, n_filters=8, transformer=dict(n_layers=2, n_heads=2, d_ff=128, window=25))
        config.model.quantizer.update(codebook_size=256, codebook_dim=16)
        config.losses.distil.teacher = "log_mel"
    elif arg:
        raise ValueError(f"mimi_24k knows the size 'tiny', not {arg!r}")
    return config
