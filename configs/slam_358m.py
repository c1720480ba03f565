"""Slam: a speech language model of 358M parameters on one GPU in a day (Maimon, Elmakies, Adi 2025, arXiv 2502.15814,
section 4; its pre-training, without the DPO that follows).

Qwen2.5-0.5B without its text embeddings (TWIST's warm start), RoPE base 10,000, on mHuBERT 25 Hz units of LibriSpeech,
Libri-Light and synthetic TinyStories, the last worth 7 points of Topic-StoryCloze: `<s>` units `</s>` packed to 1,024
tokens. Learning rate 1e-3 -> 5e-5 by a cosine over 17,625 steps of 128 rows, 1 % warm-up, clipping at 0.5, bfloat16.
Betas, no weight decay and 16 parts a batch are what its code runs with: slamkit, config/training_args/default.yaml and
the command in README.md, on the defaults of transformers.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.speech_text_lm()
    common.textless(config)
    config.steps = 17_625
    config.init_from = "data/Qwen2.5-0.5B"  # a Hugging Face folder; "" starts from random weights
    config.optimizer.update(
        peak_lr=1e-3,
        final_lr=5e-5,
        schedule="cosine",
        warmup_steps=176,
        b2=0.999,
        weight_decay=0.0,
        clip_norm=0.5,
        accumulate_steps=16,  # 8 rows at a time, for a GPU of 24 GB
    )
    config.model.update(d_model=896, n_layers=24, n_heads=14, n_kv_heads=2, d_ff=4864)
    config.model.update(qkv_bias=True, tied_embeddings=True, norm_eps=1e-6, rope_theta=1e4, remat="full")
    config.samples.update(temperature=0.8, top_k=25, top_p=1.0, speech_tokens=150)
    config.data.update(
        sources=dict(
            librispeech=dict(kind="manifest", path="data/librispeech/manifest.jsonl"),
            librilight=dict(kind="manifest", path="data/librilight/manifest.jsonl"),
            tinystories=dict(kind="manifest", path="data/tinystories/manifest.jsonl"),  # spoken by a synthesizer
        ),
        context_length=1024,
        batch_size=128,
    )
    # Units come with the manifests: mHuBERT-base-25hz, layer 11, 500 clusters.
    config.data.units = dict(
        encoder="precomputed:mhubert-base-25hz", layer=11, clusters=500, frame_rate=24.99, sha256=""
    )
    if arg == "tiny":
        common.tiny(config)
    elif arg:
        raise ValueError(f"slam_358m knows the size 'tiny', not {arg!r}")
    return config
