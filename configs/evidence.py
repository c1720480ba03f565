"""Small runs that show what each part of the recipe does, on real prompts and synthetic stories (see BUILD_NOTES.md).

`configs/evidence.py:ARM` with an arm of ARMS: the same data, model, steps and tokens; arms differ in what ARMS says.
Effects as in SpiRit-LM (Nguyen et al. 2024, Table 10) and TWIST (Hassid et al. 2023).
"""

from configs import common

VOICES = ("alto", "baritone")
ARMS = {  # changes of the arm "interleaved"
    "interleaved": {},
    "control": {"data.mixture": dict(text=0.5, speech=0.5)},
    "asr_tts": {"data.mixture": dict(text=0.25, speech=0.25, interleaved=0.25, asr=0.125, tts=0.125)},
    "shuffled_units": {"data.shuffle": "units"},
    "shuffled_times": {"data.shuffle": "times"},
}


def get_config(arg: str = ""):
    arg = arg or "interleaved"
    if arg not in ARMS:
        raise ValueError(f"evidence knows the arms {', '.join(ARMS)}, not {arg!r}")
    config = common.speech_text_lm()
    config.steps = 1500
    config.checkpoint.every = 400
    config.eval.update(every=200, batches=8)
    config.optimizer.update(peak_lr=2e-3, final_lr=2e-4, schedule="cosine", warmup_steps=100)
    config.model.update(d_model=256, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=704, dtype="float32")
    config.loss_chunks = 4
    config.data.update(
        sources=dict(
            stories=dict(kind="demo", grammar="topics", voices=VOICES, utterances=6000, stories=0.7, heldout=0.05),
            texts=dict(kind="demo_text", grammar="topics", utterances=6000, heldout=0.02),
        ),
        context_length=384,
        batch_size=8,
        mixture=dict(text=0.15, speech=0.25, interleaved=0.6, asr=0.0, tts=0.0),
        spans=dict(text_words=(3, 8), speech_words=(3, 8)),
    )
    return config
