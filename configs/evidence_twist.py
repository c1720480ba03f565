"""TWIST on two hours of recordings: SmolLM2-135M learns units of speech from its text weights (`:real_warm`) or from
random ones (`:real_cold`); by launch/evidence.py, run R. `:tiny` is a small model, from random weights, of demo speech.

Debian's asterisk prompts in five languages, one studio voice each, and units of Whisper tiny.en. The effect is that of
Hassid et al. 2023 (arXiv 2305.13009): at equal steps the text model's weights give the lower loss on speech.
"""

from configs import common

ARMS = ("real_cold", "real_warm")
LANGUAGES = ("en", "es", "fr", "it", "ru")


def get_config(arg: str = ""):
    arm = arg or "real_warm"
    if arm not in (*ARMS, "tiny"):
        raise ValueError(f"evidence_twist knows the arms {', '.join(ARMS)} and tiny, not {arg!r}")
    config = common.speech_text_lm()
    common.textless(config)
    config.init_from = "data/SmolLM2-135M" if arm == "real_warm" else ""  # a Hugging Face folder
    config.steps = 150
    config.checkpoint.update(every=50, keep=1)
    config.eval.update(every=15, batches=8)
    config.optimizer.update(peak_lr=5e-4, final_lr=5e-5, schedule="cosine", warmup_steps=15)
    config.model.update(d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, d_ff=1536, dtype="float32")
    config.model.update(tied_embeddings=True, norm_eps=1e-5, rope_theta=1e5)
    config.loss_chunks = 1
    config.data.update(
        sources={
            name: dict(kind="asterisk", path="runs/evidence/prompts", language=name, heldout=0.05) for name in LANGUAGES
        },
        context_length=512,
        batch_size=2,
    )
    config.data.units = common.learned_units() | dict(
        encoder="runs/evidence/whisper-tiny.en", layer=4, crop=True, clusters=500
    )
    if arm == "tiny":
        common.tiny(config)
    return config
