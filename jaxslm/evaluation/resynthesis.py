"""The suite "resynthesis": what voices make of the units of recordings, beside the originals and what the codec keeps.

Legend: N samples.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxslm.audio.io import Clip, decode_clip, resample, write_wav
from jaxslm.codec.identity import codec_sha256
from jaxslm.data.code_files import check_inside, in_groups
from jaxslm.data.records import Records, Utterance
from jaxslm.evaluation import listening_page, speakers
from jaxslm.evaluation.codec_metrics import TITLES, choose_metrics, measure_clip, summarize
from jaxslm.evaluation.perceptual import Scores, measure
from jaxslm.evaluation.reconstructions import ORIGINAL
from jaxslm.evaluation.tables import aligned, mean_cell
from jaxslm.generation.chain import Chain, Request, Voice

RESULT, PAGE, CODEC = "resynthesis.json", "index.html", "codec"
VOICE_SECONDS = 3.0  # of other recordings of a speaker, that a voice takes on
_TIMED_SECONDS = 30.0  # of clips that are made twice, to be timed without compilation


class Spoken(NamedTuple):
    """voice: other speech of its speaker, None where there is none."""

    id: str
    audio: Clip
    text: str = ""
    speaker: str = ""
    voice: Clip | None = None


def read_spoken(folder: str | Path, *, split: str = "heldout", prefix: str = "", most: int = 0) -> list[Spoken]:
    """The utterances of prepared records whose id begins with `prefix`, in their order, the first `most` (0: all).

    Raises ValueError where there is none with audio.
    """
    chosen, speech = [], {}
    for utterance in tqdm(Records(folder, inventory=""), desc="records", unit=" utterances", delay=5):
        if not utterance.audio:
            continue
        if utterance.split == split and utterance.id.startswith(prefix) and not (most and len(chosen) >= most):
            chosen.append(utterance)
        if utterance.speaker:
            known = speech.setdefault(_speaker(utterance), [])
            lasting = [each.duration for each in known]
            if sum(lasting) - max(lasting, default=0.0) < VOICE_SECONDS:  # enough, whichever of them is left out
                known.append(utterance)
    if not chosen:
        begins = f" whose ids begin with '{prefix}'" if prefix else ""
        raise ValueError(f"{folder} has no recordings in the split '{split}'{begins}: name others")
    return [
        Spoken(u.id, decode_clip(u.audio), u.text, u.speaker, _voice(speech.get(_speaker(u), ()), u.id)) for u in chosen
    ]


def _speaker(utterance: Utterance) -> tuple[str, str]:
    """Sources have names of their own for speakers, and ids begin with the source's."""
    return utterance.id.split("/")[0], utterance.speaker


def _voice(known: Sequence[Utterance], but: str) -> Clip | None:
    """VOICE_SECONDS of what is known of a speaker, without one utterance."""
    clips = [decode_clip(each.audio) for each in known if each.id != but]
    if not clips:
        return None
    rate = clips[0].rate
    samples_N = np.concatenate([resample(clip.samples, clip.rate, rate) for clip in clips])
    return Clip(samples_N[: round(VOICE_SECONDS * rate)], rate=rate)


def evaluate_resynthesis(
    voices: Mapping[str, Voice],
    clips: Sequence[Spoken],
    out: str | Path,
    *,
    voice: str | None = None,
    metrics: Sequence[str] = (),
    shown: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> dict:
    """Says the clips again by each voice, from units and times that were heard; returns what resynthesis.json holds.

    Writes to `out` resynthesis.json, the sound as 16-bit WAV, original/, codec/ and NAME/, a list of each for judges
    (NAME.jsonl: `audio_filepath`, `text`, `reference_filepath`), and index.html to listen to.

    Args:
      voice: a recording that all clips are to sound like, or a vocoder's speaker; by default each sounds like other
        speech of its speaker, and is measured against the original.
      metrics: of METRICS; those that are installed where none is named.
      shown: clips on the page.
    Returns:
      {"clips", "seconds", "without_voice": clips whose speaker has no other, "voices": {name: {"metrics": as
      `summarize`, "speed": seconds of each stage for a second of sound}}, "not_measured"}.
    Raises:
      ValueError: as `Chain.answer`; two clips of one name; a voice called as the originals, or without an encoder of
        its units; voices of different sample rates.
      FloatingPointError: as `Chain.answer`.
    """
    names, absent = choose_metrics(metrics)
    judge, cure = speakers.encoder()
    absent |= {speakers.METRIC: cure} if cure else {}
    rate = _check(voices, clips)
    out = Path(out)
    for clip in clips:
        check_inside(out / ORIGINAL, clip.id)
    originals = [resample(clip.audio.samples, clip.audio.rate, rate) for clip in clips]
    sounds: dict[str, list[np.ndarray]] = {}

    def add(name: str, made: Sequence[np.ndarray]) -> None:
        same = voice is None or name == ORIGINAL
        sounds[name] = list(map(_fitted, made, originals)) if same else list(made)
        _write(out, name, clips, sounds[name], rate, with_reference=voice is None and name != ORIGINAL)

    for name, made in {ORIGINAL: originals, **_through_codecs(voices, originals)}.items():
        add(name, made)
    targets = [clip.voice for clip in clips]
    speed = {}
    for name, each in voices.items():
        chain = Chain(None, each)
        target = chain.voice_of(voice)
        if voice is not None:
            targets = [target if isinstance(target, Clip) else None] * len(clips)
        requests = [Request("voice", audio=clip.audio, voice=target or _own(each, clip), id=clip.id) for clip in clips]
        add(name, _said(chain, requests, seed, tqdm(desc=name, unit=" clips", disable=not progress)))
        speed[name] = _speed(chain, requests, seed)
    embedded = [_embedded(judge, target) for target in targets] if judge else [None] * len(clips)
    result: dict = dict(
        clips=len(clips),
        seconds=sum(map(len, originals)) / rate,
        without_voice=sum(target is None for target in targets) if voice is None else 0,
        voices={},
        not_measured=absent,
    )
    scores: dict[str, dict[str, Scores]] = {}
    for name, made in sounds.items():
        compared = voice is None and name != ORIGINAL
        scores[name] = {}
        for clip, original_N, sound_N, voice_E in zip(clips, originals, made, embedded, strict=True):
            found = measure_clip(original_N, sound_N, rate, names) if compared else Scores()
            if voice_E is not None:
                found |= measure({speakers.METRIC: speakers.likeness(voice_E, judge)}, sound_N, sound_N, rate)
            scores[name][clip.id] = found
        result["voices"][name] = dict(metrics=summarize(scores[name]), speed=speed.get(name))
    (out / RESULT).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = []
    for i, clip in enumerate(clips[:shown]):
        made = {name: each[i] for name, each in sounds.items() if name != ORIGINAL}
        own = {name: each[clip.id] for name, each in scores.items()}
        page.append(listening_page.Clip(clip.id, originals[i], made, rate, own, clip.text))
    listening_page.write_page(out / PAGE, "Resynthesis from units", page, facts={"means": summary(result)})
    return result


def summary(result: dict) -> str:
    """The result as text: a table of means, and how fast each voice is."""
    titles = dict.fromkeys(metric for each in result["voices"].values() for metric in each["metrics"])
    rows = [["", *(TITLES[name] for name in titles)]]
    for name, each in result["voices"].items():
        metrics = each["metrics"]
        rows.append([name, *(mean_cell(metrics[metric]) if metric in metrics else "" for metric in titles)])
    lines = [f"{result['clips']} clips, {result['seconds'] / 60:.2f} min", "", aligned(rows)]
    if n := result["without_voice"]:
        lines.append(
            f"{n} clips have no other recording of their speaker: said in any voice, their likeness is unknown"
        )
    lines += ["", "seconds for a second of sound, compiled:"]
    for name, each in result["voices"].items():
        if each["speed"]:
            stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in each["speed"].items())
            lines.append(f"  {name}: {sum(each['speed'].values()):.3f} ({stages})")
    lines += [f"not measured: {cure}" for cure in result["not_measured"].values()]
    return "\n".join(lines)


def _check(voices: Mapping[str, Voice], clips: Sequence[Spoken]) -> int:
    """The sample rate of the voices. Raises ValueError for what cannot be compared."""
    if taken := voices.keys() & {ORIGINAL, CODEC}:
        raise ValueError(f"a voice cannot be called '{taken.pop()}' here: give it another name by NAME=WORKDIR")
    if deaf := [name for name, each in voices.items() if each.inventory is None]:
        raise ValueError(f"{deaf[0]} has no encoder of its units to hear recordings with: leave it out")
    rates = {each.sample_rate for each in voices.values()}
    if len(rates) > 1:
        raise ValueError(f"the voices speak at {sorted(rates)} Hz: measure them one by one")
    if len({clip.id for clip in clips}) < len(clips):
        raise ValueError("two clips have the same id: rename one")
    return rates.pop()


def _embedded(encode: speakers.Encoder, voice: Clip | None) -> np.ndarray | ValueError | None:
    try:
        return None if voice is None else encode(voice.samples, voice.rate)
    except ValueError as error:
        return error


def _own(voice: Voice, clip: Spoken) -> Clip | str | None:
    """What a voice takes on to sound like the speaker of a clip, as far as it can."""
    if voice.clones:
        return clip.voice
    return clip.speaker if clip.speaker in getattr(voice, "speakers", ()) else None


def _said(chain: Chain, requests: Sequence[Request], seed: int, bar: tqdm) -> list[np.ndarray]:
    sounds, done = [], 0
    with bar:
        for group in in_groups(requests, lambda request: request.audio.duration):
            places = range(done, done + len(group))
            sounds += [answer.samples for answer in chain.answer(group, seed=seed, places=places)]
            done += len(group)
            bar.update(len(group))
    return [np.zeros(0, np.float32) if each is None else each for each in sounds]


def _speed(chain: Chain, requests: Sequence[Request], seed: int) -> dict[str, float]:
    """Seconds of each stage for a second of sound: one request at a time, the second time it is made."""
    spent: dict[str, float] = {}
    total = 0.0
    for request in requests:
        if total >= _TIMED_SECONDS:
            break
        for _ in range(2):
            (answer,) = chain.answer([request], seed=seed)
        total += request.audio.duration
        for stage, seconds in answer.seconds.items():
            spent[stage] = spent.get(stage, 0.0) + seconds
    return {stage: seconds / total for stage, seconds in spent.items()}


def _through_codecs(voices: Mapping[str, Voice], originals: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """What is left of the originals in the codes that the voices make, one column for each codec and its levels."""
    runners = {name: voice.codec for name, voice in voices.items() if hasattr(voice, "codec")}
    distinct = {(codec_sha256(runner.codec), len(runner.sizes)): (name, runner) for name, runner in runners.items()}
    return {
        CODEC if len(distinct) == 1 else f"{CODEC} of {name}": runner.decode(runner.encode(list(originals)))
        for name, runner in distinct.values()
    }


def _write(out: Path, name: str, clips: Sequence[Spoken], made, rate: int, *, with_reference: bool) -> None:
    lines = []
    for clip, samples_N in zip(clips, made, strict=True):
        write_wav(out / name / f"{clip.id}.wav", np.where(np.isfinite(samples_N), samples_N, 0.0), rate)
        line = dict(audio_filepath=f"{name}/{clip.id}.wav", text=clip.text)
        lines.append(line | (dict(reference_filepath=f"{ORIGINAL}/{clip.id}.wav") if with_reference else {}))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (out / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _fitted(samples_N: np.ndarray, original_N: np.ndarray) -> np.ndarray:
    n = len(original_N)
    return np.pad(samples_N[:n], (0, max(0, n - len(samples_N))))
