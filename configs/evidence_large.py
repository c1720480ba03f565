"""Runs A and B larger, for an accelerator: SmolLM2-135M goes on with recordings, `configs/evidence_large.py:ARM`; by
launch/evidence.py, run L. `:tiny` is that of configs/evidence.py.

The arms and shares of configs/evidence.py, on Debian's prompts, a corpus of recordings of your own (a manifest, see
jaxslm/data/sources/manifest.py) with its transcripts as text, and synthetic stories in five voices beside them; units
of Whisper tiny.en. 24.6 million tokens an arm.
"""

from configs import common, evidence

ARMS = {f"large_{arm}": arm for arm in ("interleaved", "control", "asr_tts")}


def get_config(arg: str = ""):
    if arg == "tiny":
        return evidence.get_config("tiny")
    arm = arg or "large_interleaved"
    if arm not in ARMS:
        raise ValueError(f"evidence_large knows the arms {', '.join(ARMS)}, and 'tiny', not {arg!r}")
    config = evidence.get_config(ARMS[arm])
    config.init_from = config.data.tokenizer = "data/SmolLM2-135M"  # a Hugging Face folder
    config.model.update(d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, d_ff=1536, dtype="bfloat16")
    config.model.update(tied_embeddings=True, norm_eps=1e-5, rope_theta=1e5)
    config.optimizer.update(peak_lr=5e-4, final_lr=5e-5)
    config.loss_chunks = 8
    config.samples.text_tokens = 50
    config.data.update(context_length=1024, batch_size=16)
    config.data.sources.stories.voices = ()  # all
    config.data.sources.update(
        recordings=dict(kind="manifest", path="data/recordings/manifest.jsonl", heldout=0.05),
        transcripts=dict(kind="text", path="data/recordings/manifest.jsonl", heldout=0.05),
    )
    config.data.units = common.learned_units() | dict(
        encoder="runs/evidence/whisper-tiny.en", layer=4, crop=True, clusters=500
    )
    return config
