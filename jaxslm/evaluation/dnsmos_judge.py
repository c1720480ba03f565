"""A judge of quality (see judges.py): DNSMOS P.835, overall (Reddy et al. 2022), by the package speechmos:

    --quality=dnsmos="python -m jaxslm.evaluation.dnsmos_judge {list}"

pip install onnxruntime && pip install --no-deps speechmos
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from jaxslm.audio.io import read_audio

RATE = 16_000
ANY = dict(min_seconds=0.0, max_seconds=math.inf, silence=True)  # a model may say nothing, or go on and on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    flags = parser.parse_args()
    try:
        from speechmos import dnsmos
    except ImportError:
        sys.exit("this judge needs speechmos: pip install onnxruntime && pip install --no-deps speechmos")
    for path in flags.list.read_text(encoding="utf-8").splitlines():
        samples_N = read_audio(Path(path), where=path, **ANY).heard
        samples_N = np.clip(np.pad(samples_N, (0, max(0, RATE - len(samples_N)))), -1, 1)  # a second at least
        score = float(dnsmos.run(samples_N, sr=RATE)["ovrl_mos"])
        print(json.dumps(dict(audio_filepath=path, score=score)), flush=True)


if __name__ == "__main__":
    main()
