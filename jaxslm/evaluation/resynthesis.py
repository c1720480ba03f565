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
from jaxslm.data.records import Records
from jaxslm.evaluation import listening_page, speakers
from jaxslm.evaluation.codec_metrics import TITLES, choose_metrics, measure_clip, summarize
from jaxslm.evaluation.perceptual import Scores
from jaxslm.evaluation.reconstructions import ORIGINAL
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
    chosen, others = [], {}
    for utterance in tqdm(Records(folder), desc="records", unit=" utterances", delay=5):
        if not utterance.audio:
            continue
        if utterance.split == split and utterance.id.startswith(prefix) and not (most and len(chosen) >= most):
            chosen.append(utterance)
        elif utterance.speaker:
            pieces = others.setdefault(utterance.speaker, [])
            if sum(clip.duration for clip in pieces) < VOICE_SECONDS:
                pieces.append(decode_clip(utterance.audio))
    if not chosen:
        begins = f" whose ids begin with '{prefix}'" if prefix else ""
        raise ValueError(f"{folder} has no recordings in the split '{split}'{begins}: name others")
    voices = {speaker: _joined(clips) for speaker, clips in others.items()}
    return [Spoken(u.id, decode_clip(u.audio), u.text, u.speaker, voices.get(u.speaker)) for u in chosen]


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
      {"clips", "seconds", "voices": {name: {"metrics": as `summarize`, "speed": seconds of each stage for a second of
      sound}}, "not_measured"}.
    Raises:
      ValueError: as `Chain.answer`; two clips of one name; voices of different sample rates.
    """
    names, absent = choose_metrics(metrics)
    if len(rates := {each.sample_rate for each in voices.values()}) > 1:
        raise ValueError(f"the voices speak at {sorted(rates)} Hz: measure them one by one")
    if len({clip.id for clip in clips}) < len(clips):
        raise ValueError("two clips have the same id: rename one")
    out, (rate,) = Path(out), rates
    for clip in clips:
        check_inside(out / ORIGINAL, clip.id)
    originals = [resample(clip.audio.samples, clip.audio.rate, rate) for clip in clips]
    sounds: dict[str, list[np.ndarray]] = {ORIGINAL: originals, **_through_codecs(voices, originals)}
    result: dict = dict(clips=len(clips), seconds=sum(map(len, originals)) / rate, voices={})
    speed = {}
    for name, each in voices.items():
        chain = Chain(None, each)
        target = chain.voice_of(voice)
        requests = [Request("voice", audio=clip.audio, voice=target or _own(each, clip), id=clip.id) for clip in clips]
        sounds[name] = _said(chain, requests, seed, tqdm(desc=name, unit=" clips", disable=not progress))
        speed[name] = _speed(chain, requests, seed)
    same = voice is None
    sounds = {name: [_fitted(s, len(o)) if same else s for s, o in zip(made, originals, strict=True)]
              for name, made in sounds.items()}  # fmt: skip
    heard = [clip.voice for clip in clips] if same else [chain.recording(voice)] * len(clips)
    judge, cure = speakers.encoder()
    absent |= {"speaker": cure} if cure else {}
    scores: dict[str, dict[str, Scores]] = {}
    for name, made in sounds.items():
        _write(out, name, clips, made, rate, with_reference=same and name != ORIGINAL)
        own = scores[name] = {clip.id: Scores() for clip in clips}
        for clip, original_N, sound_N, speaker in zip(clips, originals, made, heard, strict=True):
            if same and name != ORIGINAL:
                own[clip.id] |= measure_clip(original_N, sound_N, rate, names)
            if judge and speaker is not None:
                own[clip.id] |= speakers.measure_speaker(judge, sound_N, rate, speaker)
        result["voices"][name] = dict(metrics=summarize(own), speed=speed.get(name))
    result["not_measured"] = absent
    (out / RESULT).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = [
        listening_page.Clip(
            clip.id,
            originals[i],
            {name: made[i] for name, made in sounds.items() if name != ORIGINAL},
            rate,
            {name: each[clip.id] for name, each in scores.items()},
            clip.text,
        )
        for i, clip in enumerate(clips[:shown])
    ]
    listening_page.write_page(out / PAGE, "Resynthesis from units", page, facts={"means": summary(result)})
    return result


def summary(result: dict) -> str:
    """The result as text: a table of means, and how fast each voice is."""
    titles = dict.fromkeys(metric for each in result["voices"].values() for metric in each["metrics"])
    rows = [["", *(TITLES.get(name, name) for name in titles)]]
    for name, each in result["voices"].items():
        means = [each["metrics"].get(metric, {}).get("mean") for metric in titles]
        rows.append([name, *("" if mean is None else f"{mean:.3f}" for mean in means)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{result['clips']} clips, {result['seconds'] / 60:.2f} min", ""]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += ["", "seconds a second of sound, compiled:"]
    for name, each in result["voices"].items():
        if each["speed"]:
            stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in each["speed"].items())
            lines.append(f"  {name}: {sum(each['speed'].values()):.3f} ({stages})")
    lines += [f"not measured: {cure}" for cure in result["not_measured"].values()]
    return "\n".join(lines)


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


def _joined(clips: Sequence[Clip]) -> Clip:
    rate = clips[0].rate
    return Clip(np.concatenate([resample(clip.samples, clip.rate, rate) for clip in clips]), rate=rate)


def _fitted(samples_N: np.ndarray, n: int) -> np.ndarray:
    return np.pad(samples_N[:n], (0, max(0, n - len(samples_N))))
