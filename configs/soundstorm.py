"""SoundStorm: units to the codes of a codec by masked prediction, a level at a time (Borsos et al. 2023, arXiv
2305.09636, sections 3 and 4).

A Conformer of 12 layers, 16 heads, 1,024 features, feed-forward of 4,096 and convolutions of 5 frames with rotary
positions, 350M parameters there, on crops of 30 s; a level is drawn evenly, a prompt of any length stays as it is, and
the share that is hidden is a cosine. Here units have the codec's frame rate, the prompt is dropped from 15 % of the
clips (MaskGCT, Wang et al. 2024, for guidance), layers are Llama's (SwiGLU: 1.4 times the parameters of a
feed-forward of that width), and embeddings of codes start from the codec's codebooks. The optimizer is not stated
there. Name a codec by --config.data.codec=WORKDIR; soundstream_16k is this project's.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.acoustic()
    config.optimizer.update(peak_lr=4e-4, schedule="cosine", warmup_steps=10_000, b2=0.98, weight_decay=0.01)
    config.data.units.clusters = 1000
    if arg == "tiny":
        config.model.update(d_model=128, n_layers=3, n_heads=4, d_ff=384, dtype="float32")
        config.durations.update(dim=32, hidden=32)
        config.optimizer.update(peak_lr=2e-3, warmup_steps=30)
        config.steps = 300
        config.checkpoint.every = 100
        config.eval.update(every=100, batches=4)
        config.data.update(sources=common.demo_speech(), seconds=3.0, batch_size=8)
        config.data.units = common.learned_units()
    elif arg:
        raise ValueError(f"soundstorm knows the size 'tiny', not {arg!r}")
    return config
