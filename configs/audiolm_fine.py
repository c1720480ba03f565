"""AudioLM's fine acoustic stage: the first 4 codes of each frame to the other 8 (Borsos et al. 2022, arXiv 2209.03143,
sections III and IV; the temperature, 0.6, is from memory).

Crops of 3 s; data, sizes and what is not as there: see audiolm_coarse.py, whose codes it goes on with. Both need the
same data.codec and data.acoustic.coarse_levels.
"""

from configs import common


def get_config(arg: str = ""):
    config = common.audiolm(stage="fine", seconds=3.0, context_length=1920, temperature=0.6)
    if arg == "tiny":
        common.tiny_audiolm(config, seconds=0.5)
    elif arg:
        raise ValueError(f"audiolm_fine knows the size 'tiny', not {arg!r}")
    return config
