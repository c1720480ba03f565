"""What the model says: held-out utterances answered in every direction, as text to print and as a page to look at."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxslm.audio.io import write_wav
from jaxslm.data.records import Records, Utterance
from jaxslm.evaluation.unit_strip import unit_strip
from jaxslm.generation.chain import Voice
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import Response, complete, prompt_ids
from jaxslm.units.units import UnitSequence
from jaxslm.vocabulary import Vocabulary

STYLE = """
body { font: 15px sans-serif; margin: 2em; max-width: 70em }
th { text-align: left; vertical-align: top; padding-right: 1em; white-space: nowrap; color: #555; font-weight: normal }
td, th { padding-bottom: .5em }
small { color: #888; font-weight: normal }
svg, audio { display: block }
"""
# What is asked, from which modality to which.
QUESTIONS = (
    ("transcript (ASR)", "speech", "text"),
    ("spoken (TTS)", "text", "speech"),
    ("speech continued", "speech", "speech"),
    ("text continued", "text", "text"),
)


def pick_heldout(records: Records, vocabulary: Vocabulary, most: int) -> list[Utterance]:
    """The first held-out utterances that have units and, if the vocabulary has text, at least four words; from the
    training data if none is held out."""
    least_words = 4 if vocabulary.has_text else 0
    chosen: dict[str, list[Utterance]] = {"heldout": [], "train": []}
    for utterance in records:
        units = utterance.units.get(vocabulary.unit_inventory_sha256)
        if units is not None and len(units.ids) and len(utterance.text.split()) >= least_words:
            chosen[utterance.split].append(utterance)
        if len(chosen["heldout"]) >= most:
            break
        del chosen["train"][most:]
    return chosen["heldout"] or chosen["train"]


def write_samples(
    state,
    folder: Path,
    step: int,
    *,
    utterances: Sequence[Utterance],
    vocabulary: Vocabulary,
    tokenizer,
    config: Mapping,
    voice: Voice | None = None,
) -> str:
    """Answers every question about every utterance; writes index.html, audio and answers.json into `folder`.

    Args:
      state: has the `model`.
      config: temperature, top_k, top_p, text_tokens, speech_tokens (most new tokens of an answer). Transcripts are
        greedy.
      voice: what speaks, on process 0.

    Returns:
      The answers as text for the terminal.
    """
    if not utterances:
        return "no utterance to show samples of: none has units" + (" and text" if vocabulary.has_text else "")
    answers = {}
    for number, (name, source, to) in enumerate(QUESTIONS):
        if "text" in (source, to) and not vocabulary.has_text:
            continue
        prompts = [_prompt(u, source, to, vocabulary, tokenizer) for u in utterances]
        sampling = Sampling(
            max_new_tokens=config["text_tokens"] if to == "text" else config["speech_tokens"],
            temperature=0.0 if (source, to) == ("speech", "text") else config["temperature"],
            top_k=config["top_k"],
            top_p=config["top_p"],
        )
        key = jax.random.fold_in(jax.random.key(step), number)
        answers[name] = complete(state.model, vocabulary, tokenizer, prompts, to=to, sampling=sampling, key=key)
    heard: list[str] = []
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        sounds = _speak(voice, folder, utterances, answers, vocabulary.unit_inventory_sha256, step) if voice else {}
        _write_page(folder, step, utterances, answers, sounds)
        heard = [f"to hear: {path}" for path in sounds.values()]
    return "\n".join([_as_text(utterances, answers), *heard])


def _speak(
    voice: Voice,
    folder: Path,
    utterances: Sequence[Utterance],
    answers: Mapping[str, Sequence[Response]],
    sha256: str,
    step: int,
) -> dict[tuple[int, str], Path]:
    """WAV files by utterance and question: of what is answered in units, and as "units" of the utterance's own."""
    named = {(i, "units"): utterance.units[sha256] for i, utterance in enumerate(utterances)}
    rate = named[0, "units"].frame_rate
    said = {
        (i, name): UnitSequence(response.units, np.ones(len(response.units)), rate)
        for name, responses in answers.items()
        for i, response in enumerate(responses)
        if response.units
    }
    key, files = jax.random.key(step), {}
    timed = voice.timed(list(said.values()), speed=1.0, temperature=0.0, key=key)
    named |= dict(zip(said, timed, strict=True))
    sounds = voice.speak(list(named.values()), [None] * len(named), key)
    for (i, name), samples_N in zip(named, sounds, strict=True):
        files[i, name] = folder / f"{i}-{name.split(' (')[0].replace(' ', '-')}.wav"
        write_wav(files[i, name], samples_N, voice.sample_rate)
    return files


def _prompt(utterance: Utterance, source: str, to: str, vocabulary: Vocabulary, tokenizer) -> tuple[int, ...]:
    """Whole utterances to transcribe or speak, the first half of them to continue."""
    units = utterance.units[vocabulary.unit_inventory_sha256].ids
    words = utterance.text.split()
    if source == to:
        units, words = units[: -(-len(units) // 2)], words[: -(-len(words) // 2)]
    content = {"units": units} if source == "speech" else {"text": " ".join(words)}
    return prompt_ids(vocabulary, tokenizer, to=to, **content)


def _as_text(utterances: Sequence[Utterance], answers: Mapping[str, Sequence[Response]]) -> str:
    lines = []
    for i, utterance in enumerate(utterances):
        said = f': "{utterance.text}"' if utterance.text else ""
        lines.append(f"{utterance.id} ({utterance.split}){said}")
        for name, responses in answers.items():
            lines.append(f"  {name:<17} {responses[i]}{'' if responses[i].stopped else ' ... (cut)'}")
    return "\n".join(lines)


def _write_page(
    folder: Path,
    step: int,
    utterances: Sequence[Utterance],
    answers: Mapping[str, Sequence[Response]],
    sounds: Mapping[tuple[int, str], Path],
) -> None:
    sections, table = [], []
    for i, utterance in enumerate(utterances):
        rows = {"said": html.escape(utterance.text)} if utterance.text else {}
        if utterance.audio:
            (folder / f"{i}.flac").write_bytes(utterance.audio)
            rows["heard"] = f'<audio controls src="{i}.flac"></audio>'
        (units,) = list(utterance.units.values())[:1]
        rows["units"] = unit_strip(units.ids.tolist())
        for name, responses in answers.items():
            response = responses[i]
            rows[name] = html.escape(response.text) if response.text is not None else unit_strip(response.units)
        for name in rows:
            if (i, name) in sounds:
                rows[name] += f'<audio controls src="{sounds[i, name].name}"></audio>'
        table.append({"id": utterance.id, "text": utterance.text} | {name: str(r[i]) for name, r in answers.items()})
        body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
        sections.append(f"<h2>{html.escape(utterance.id)} <small>{utterance.split}</small></h2><table>{body}</table>")
    page = f"<!doctype html><meta charset=utf-8><title>Samples at step {step}</title><style>{STYLE}</style>"
    (folder / "index.html").write_text(f"{page}<h1>Samples at step {step}</h1>{''.join(sections)}", encoding="utf-8")
    (folder / "answers.json").write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")
