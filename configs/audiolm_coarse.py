"""AudioLM's coarse acoustic stage: units to the first 4 of 12 codes a frame (Borsos et al. 2022, arXiv 2209.03143,
sections III and IV; the temperature, 0.8, the dropout of 0.1, the batch and the steps are from memory).

w2v-BERT XL layer 7, 1,024 clusters at 25 Hz; SoundStream at 50 Hz with 12 levels of 1,024; a decoder of 12 layers, 16
heads, width 1,024 and feed-forward 4,096 (0.3 B) on crops of 10 s; a 3 s prompt. 1M updates of 256 crops of
Libri-Light.

Not as there: the units are one a frame, where AudioLM's are deduplicated, so that the number of code frames to make is
known. The decoder is of the Llama family: rotary positions for T5's, SwiGLU, no dropout. The optimizer is ours.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.audiolm(stage="coarse", seconds=10.0, context_length=2304, temperature=0.8)
    if arg == "tiny":
        common.tiny_audiolm(config, seconds=1.0)
    elif arg:
        raise ValueError(f"audiolm_coarse knows the size 'tiny', not {arg!r}")
    return config
