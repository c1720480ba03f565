"""TWIST-350M: a speech language model warm-started from a text one (Hassid et al. 2023, arXiv 2305.13009, its sections
on the method and the experimental setup).

The text model's body is kept, its embeddings are replaced by those of mHuBERT 25 Hz units, 500 clusters; then it
trains on `<s>` units `</s>` for 10.8B tokens, inverse-sqrt learning rate after 100 warm-up steps. Sampling at
temperature 0.8. From memory, not checked in the paper: learning rate 4e-4, context 512, 64 rows a batch. AdamW's betas
and weight decay are the defaults of common.py.

The paper's body is OPT-350M, which is not of the Llama family (learned positions, layer norm, ReLU); this recipe takes
the shape of SmolLM2-360M instead: 315M parameters with units, where the published model has 305M.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.speech_text_lm()
    common.textless(config)
    config.steps = 329_590  # 10.8B tokens
    config.init_from = "data/SmolLM2-360M"  # a Hugging Face folder; "" is the paper's cold start
    config.checkpoint.every = 5000
    config.eval.update(every=5000, batches=16)
    config.optimizer.update(peak_lr=4e-4, schedule="inverse_sqrt", warmup_steps=100)
    config.model.update(d_model=960, n_layers=32, n_heads=15, n_kv_heads=5, d_ff=2560)
    config.model.update(tied_embeddings=True, norm_eps=1e-5, rope_theta=1e5, remat="full")
    config.samples.update(temperature=0.8, top_p=1.0)
    config.data.update(
        sources=dict(
            librispeech=dict(kind="manifest", path="data/librispeech/manifest.jsonl"),
            librilight=dict(kind="manifest", path="data/librilight/manifest.jsonl"),
        ),
        context_length=512,
        batch_size=64,
    )
    # Units come with the manifests: mHuBERT-base-25hz, layer 11, 500 clusters.
    config.data.units = dict(
        encoder="precomputed:mhubert-base-25hz", layer=11, clusters=500, frame_rate=24.99, sha256=""
    )
    if arg == "tiny":
        common.tiny(config)
    elif arg:
        raise ValueError(f"twist_350m knows the size 'tiny', not {arg!r}")
    return config
