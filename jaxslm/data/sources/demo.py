"""The embedded corpus: a grammar's sentences and stories, spoken by espeak-ng with word times, or as text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, grammar, topics
from jaxslm.data.sources.espeak import Synthesizer
from jaxslm.spelling import closest

# speaker -> espeak-ng voice, pitch; median F0 from 85 to 210 Hz
VOICES = {
    "bass": ("en-us+m4", 40),
    "baritone": ("en-us", 50),
    "tenor": ("en-us+m3", 65),
    "alto": ("en-us+f2", 45),
    "soprano": ("en-us+f3", 55),
}
STORIES = 0.25  # of the utterances
GRAMMARS = {"days": grammar, "topics": topics}


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """spec: `utterances` (400), `seed` (0), `heldout` (0.05), `grammar` ("days", or "topics" of topics.py), `stories`
    (.25: the share of stories; the others are sentences of 1 to 3 s), `voices` (names of VOICES; all).

    No text occurs twice, and no sentence of a held-out utterance occurs in training. Deterministic; ValueError without
    espeak-ng.
    """
    voices = sorted(spec.get("voices") or VOICES)
    if wrong := [name for name in voices if name not in VOICES]:
        raise ValueError(f"demo corpus: there is no voice {wrong[0]!r}: use {', '.join(VOICES)}")
    synthesizer = Synthesizer()
    for id, split, text, rng in _texts("speech", spec, stories=spec.get("stories", STORIES)):
        speaker = rng.choice(voices)
        voice, pitch = VOICES[speaker]
        samples, words = synthesizer.speak(
            text, voice, words_per_minute=rng.randint(150, 180), pitch=pitch + rng.randint(-5, 5)
        )
        audio = (samples, synthesizer.rate)
        yield RawUtterance(id, f"demo:{id}", text, audio, words, speaker=speaker, language="en", split=split)


def read_text(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """Text-only stories of the same grammar, none of whose sentences is spoken; spec as for `read`."""
    for id, split, text, _ in _texts("text", spec, stories=1.0):
        yield RawUtterance(id, f"demo_text:{id}", text, language="en", split=split)


def _texts(purpose: str, spec: Mapping, *, stories: float) -> Iterator[tuple[str, str, str, random.Random]]:
    """(id, split, text, the utterance's random numbers); the held-out are spread evenly, so a `limit` keeps some."""
    count, seed, heldout = spec.get("utterances", 400), spec.get("seed", 0), spec.get("heldout", 0.05)
    if not (isinstance(count, int) and count > 0 and 0 <= heldout < 1):
        raise ValueError(
            f"demo corpus: utterances={count!r} must be a whole number above 0, heldout={heldout!r} from 0 to below 1"
        )
    if (name := spec.get("grammar", "days")) not in GRAMMARS:
        raise ValueError(f"demo corpus: there is no grammar {name!r}.{closest(str(name), GRAMMARS)}")
    written = GRAMMARS[name]
    seen: set[str] = set()
    for i in range(count):
        split = "heldout" if int((i + 1) * heldout) > int(i * heldout) else "train"
        rng = random.Random(f"{purpose} {seed} {i}")
        write = written.story if rng.random() < stories else written.sentence
        candidates = (write(rng, (purpose, split)) for _ in range(1000))
        text = next((text for text in candidates if text not in seen), None)
        if text is None:
            raise ValueError(f"demo corpus: the grammar has no more {split} texts after {i} utterances; ask for fewer")
        seen.add(text)
        yield f"{purpose}-{seed}-{i:06d}", split, text, rng
