"""GSLM's unit language model (Lakhotia et al. 2021, arXiv 2102.01192, the section on uLM; fairseq,
examples/textless_nlp/gslm/ulm/README.md, whose command gives the figures).

HuBERT-base layer 6, 100 clusters at 50 Hz, repeats removed; a 12-layer transformer (`transformer_lm_big`: width 1,024,
16 heads, shared input and output embedding) on `<s>` units `</s>`, one utterance a sequence of at most 3,072 tokens.
Adam 0.9/0.98, learning rate 5e-4 by inverse sqrt after 4,000 warm-up steps, clipping at 1, 500k updates of at most
8 GPUs x 16 x 4,096 tokens. Sampling at temperature 0.7. The training speech, Libri-Light's clean 6k hours, is from
memory.

Ours is of the Llama family: RMSNorm, rotary positions, and the feed-forward of 4,096 with two matrices has become
SwiGLU's three of 2,736 (as many parameters, in a multiple of 16). There is no dropout, where GSLM has 0.1.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.speech_text_lm()
    common.textless(config)
    config.steps = 500_000
    config.checkpoint.every = 5000
    config.eval.update(every=5000, batches=16)
    config.optimizer.update(
        peak_lr=5e-4, schedule="inverse_sqrt", warmup_steps=4000, b2=0.98, weight_decay=0.0, clip_norm=1.0
    )
    config.model.update(d_model=1024, n_layers=12, n_heads=16, n_kv_heads=16, d_ff=2736)
    config.model.update(tied_embeddings=True, rope_theta=1e4, remat="full")
    config.samples.update(temperature=0.7, top_p=1.0, speech_tokens=500)
    config.data.update(
        sources=dict(librilight=dict(kind="manifest", path="data/librilight_6k/manifest.jsonl")),
        context_length=3072,
        batch_size=168,  # 516k tokens
    )
    # Units come with the manifest: HuBERT-base of LibriSpeech 960 h, layer 6, 100 clusters.
    config.data.units = dict(encoder="precomputed:hubert-base-ls960", layer=6, clusters=100, frame_rate=50.0, sha256="")
    if arg == "tiny":
        common.tiny(config)
    elif arg:
        raise ValueError(f"gslm_150m knows the size 'tiny', not {arg!r}")
    return config
