"""Stories with a right and a wrong end, text and speech, in the layout of cross-modal StoryCloze:

    python -m jaxslm.evaluation.topic_cloze FOLDER --stories=300

Topic-StoryCloze of the demo corpus (see data/sources/topics.py): the wrong end is a sentence of the same form on
another topic. No sentence in it occurs in training. Needs espeak-ng.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from jaxslm.audio.io import resample, write_wav
from jaxslm.data.sources.demo import VOICES
from jaxslm.data.sources.espeak import Synthesizer
from jaxslm.data.sources.topics import TOPICS, story_and_ends

RATE = 16_000
POOL = ("speech", "heldout")


def write_cloze(folder: Path, stories: int, voices: Sequence[str] = tuple(sorted(VOICES)), seed: int = 0) -> None:
    """Writes N_mutual, N_correct and N_incorrect, each as .wav and .txt, of one voice a story."""
    folder.mkdir(parents=True, exist_ok=True)
    synthesizer = Synthesizer()
    for number in tqdm(range(stories), unit=" stories", desc="cloze"):
        rng = random.Random(f"cloze {seed} {number}")
        topic, other = rng.sample(sorted(TOPICS), 2)
        begin, (end, wrong) = story_and_ends(rng, POOL, [topic, other])
        voice, pitch = VOICES[rng.choice(voices)]
        texts = dict(mutual=begin, correct=end, incorrect=wrong)
        for name, text in texts.items():
            samples, _ = synthesizer.speak(text, voice, words_per_minute=165, pitch=pitch)
            write_wav(folder / f"{number}_{name}.wav", resample(samples, synthesizer.rate, RATE), RATE)
            (folder / f"{number}_{name}.txt").write_text(text + "\n", encoding="utf-8")


def write_domain(folder: Path, cloze: Path, stories: int) -> None:
    """The texts of `write_cloze` as documents, stories.txt, and as questions, choices.jsonl: what a text model knows of
    this domain, for `--suite=forgetting`."""
    documents, questions = [], []
    for n in range(stories):
        begin, *ends = ((cloze / f"{n}_{part}.txt").read_text().strip() for part in ("mutual", "correct", "incorrect"))
        documents.append(f"{begin} {ends[0]}\n")
        questions.append(json.dumps(dict(context=[begin], options=[f" {end}" for end in ends], answer=0)) + "\n")
    (folder / "stories.txt").write_text("".join(documents), encoding="utf-8")
    (folder / "choices.jsonl").write_text("".join(questions), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stories", type=int, default=300)
    parser.add_argument("--voices", default=",".join(sorted(VOICES)))
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    write_cloze(flags.folder, flags.stories, flags.voices.split(","), flags.seed)
