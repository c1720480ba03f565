"""Small runs that show what each part of the recipe does: `configs/evidence.py:ARM`, all by launch/evidence.py.
`:tiny` is "interleaved" at a size for a try, without recordings and suites.

The same data, model and tokens a step in every arm; arms differ from "interleaved" in what ARMS says, and those that
are compared have the same steps. The effects are those of SpiRit-LM (Nguyen et al. 2024, Table 10) and TWIST (Hassid et
al. 2023, section 4).
"""

from configs import common

VOICES = ("baritone",)


def _mixture(**shares: float) -> dict:
    return {f"data.mixture.{name}": shares.get(name, 0.0) for name in ("text", "speech", "interleaved", "asr", "tts")}


_SHORT = {"steps": 750}
# For what is longer, a story as text and speech or one without joined runs: as many tokens a step.
_LONG_ROWS = {"data.context_length": 512, "data.batch_size": 6}


def _units(clusters: int, deduplicated: bool = True, **others) -> dict:
    units = dict(clusters=clusters, deduplicated=deduplicated, **others)
    rows = {} if deduplicated else _LONG_ROWS
    return {f"data.units.{name}": value for name, value in units.items()} | rows | _SHORT


_WHISPER = dict(encoder="runs/evidence/whisper-tiny.en", layer=4, crop=True)  # launch/evidence.py --whisper names it
_WARM = _SHORT | {"init_from": "text"}  # the run "text" of the same seed

ARMS = {
    "interleaved": {},
    "control": _mixture(text=0.375, speech=0.625),  # text and speech as in "interleaved", 3 to 5
    "asr_tts": _mixture(text=0.15, speech=0.25, interleaved=0.2, asr=0.2, tts=0.2) | _LONG_ROWS,
    "shuffled_units": {"data.shuffle": "units"},
    "shuffled_times": {"data.shuffle": "times"},
    "text": _mixture(text=1.0) | {"steps": 1000},
    "cold": _mixture(speech=1.0) | _SHORT,
    "warm": _mixture(speech=1.0) | _WARM,
    "twist": _WARM,  # of speech alone, with new tables: see below
    "replay_0": _mixture(speech=0.3, interleaved=0.7) | _WARM,
    "replay_10": _mixture(text=0.1, speech=0.27, interleaved=0.63) | _WARM,
    "replay_30": _mixture(text=0.3, speech=0.21, interleaved=0.49) | _WARM,
    **{f"mfcc_{clusters}": _units(clusters) for clusters in (100, 500, 1000)},
    "mfcc_100_frames": _units(100, deduplicated=False),
    **{f"whisper_{clusters}": _units(clusters, **_WHISPER) for clusters in (100, 500, 1000)},
    "whisper_500_frames": _units(500, deduplicated=False, **_WHISPER),
}


def get_config(arg: str = ""):
    arm = "interleaved" if arg in ("", "tiny") else arg
    if arm not in ARMS:
        raise ValueError(f"evidence knows the arms {', '.join(ARMS)}, and 'tiny', not {arg!r}")
    config = common.speech_text_lm()
    config.steps = 1500
    config.checkpoint.update(every=500, keep=1)
    config.eval.update(every=250, batches=8)
    config.eval.suites = dict(  # which launch/evidence.py makes; 100 stories while training, all of them at the end
        cloze=dict(kind="storycloze", path="runs/evidence/cloze", modes=("S", "T", "S->T", "T->S"), limit=400)
    )
    config.samples.update(voice="quick", text_tokens=150)
    config.optimizer.update(peak_lr=2e-3, final_lr=2e-4, schedule="cosine", warmup_steps=100)
    config.model.update(d_model=256, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=704, dtype="float32")
    config.loss_chunks = 4
    config.data.update(
        sources=dict(
            stories=dict(kind="demo", grammar="topics", voices=VOICES, utterances=6000, stories=0.7, heldout=0.05),
            prompts=dict(kind="asterisk", path="runs/evidence/prompts", heldout=0.25),
            texts=dict(kind="demo_text", grammar="topics", utterances=6000, heldout=0.02),
        ),
        alignment="pocketsphinx",
        context_length=384,
        batch_size=8,
        spans=dict(text_words=(3, 8), speech_words=(3, 8)),
    )
    config.update_from_flattened_dict(_mixture(text=0.15, speech=0.25, interleaved=0.6) | ARMS[arm])
    if arm == "twist":
        common.textless(config)
        config.eval.suites.cloze.update(modes=("S",), limit=100)
        del config.data.sources.texts
    if arg == "tiny":
        config.steps, config.eval.suites = 40, dict()
        del config.data.sources.prompts
        for source in ("stories", "texts"):
            config.data.sources[source].utterances = 300
    return config
