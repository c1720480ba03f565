"""SpiRit-LM Base 7B with the +ASR+TTS mixture (Nguyen et al. 2024, arXiv 2402.05755, sections 3 and 4, App. A).

Llama-2-7B continued on one third each of text, speech, and speech with text; the last third is word-interleaved text
and speech, ASR and TTS in equal parts. 32,000 text pieces + [Text] [Speech] + 501 units, padded to 32,512; constant
learning rate 3e-5; 4k context; 1M-token batches; 100k steps; RoPE base 10,000 -> 100,000. The optimizer is not stated
there.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.speech_text_lm()
    config.steps = 100_000
    config.log_every = 10
    config.init_from = "data/llama-2-7b"  # a Hugging Face folder; its tokenizer serves, too
    config.new_rows = "random"
    config.checkpoint.every = 1000
    config.eval.update(every=5000, batches=16)
    config.optimizer.update(peak_lr=3e-5, schedule="constant", warmup_steps=0, b2=0.95, weight_decay=0.1, clip_norm=1.0)
    config.model.update(d_model=4096, n_layers=32, n_heads=32, n_kv_heads=32, d_ff=11_008, rope_theta=1e5, remat="full")
    config.loss_chunks = 8
    config.mesh.update(data=1, fsdp=-1)
    config.data.update(
        sources=dict(
            speech=dict(kind="manifest", path="data/speech/manifest.jsonl"),  # 458k h, units only
            speech_text=dict(kind="manifest", path="data/speech_text/manifest.jsonl"),  # 111k h with word times
            text=dict(kind="text", path="data/text"),
        ),
        tokenizer="data/llama-2-7b/tokenizer.model",
        text_tokens=32_000,
        context_length=4096,
        batch_size=256,
        mixture=dict(text=1 / 3, speech=1 / 3, interleaved=1 / 9, asr=1 / 9, tts=1 / 9),
        spans=dict(text_words=(10, 30), speech_words=(5, 15)),
    )
    # Units come with the manifests: mHuBERT-base-25hz, layer 11, 500 clusters; the released vocabulary has one more.
    config.data.units = dict(
        encoder="precomputed:mhubert-base-25hz", layer=11, clusters=501, frame_rate=24.99, sha256=""
    )
    if arg == "tiny":
        common.tiny(config)
    elif arg:
        raise ValueError(f"spiritlm_7b knows the size 'tiny', not {arg!r}")
    return config
