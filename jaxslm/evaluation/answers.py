"""What a person asks of a chain, as a page takes it and shows it. Everything in it that came from outside is checked
or escaped here.
"""

import base64
import html
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxslm.audio.io import Clip
from jaxslm.evaluation.spectrogram import draw_sound
from jaxslm.evaluation.unit_strip import unit_strip
from jaxslm.generation.chain import Answer, Chain, Request
from jaxslm.generation.sampler import Sampling

MOST_CHARACTERS = 1000  # of a text
MOST_BYTES = 64 * 2**20  # of a recording
MOST_SEED = 2**31 - 1
SPEEDS, TEMPERATURES = (0.5, 2.0), (0.0, 1.5)
_COLUMNS = 72  # units a row


@dataclass(frozen=True)
class Mode:
    """given: "text" or "audio". to: as in a `Request`. temperature: that it begins with."""

    given: str
    to: str
    temperature: float = Sampling.temperature


MODES = {
    "Speak a text": Mode("text", "speech"),
    "Transcribe speech": Mode("audio", "text", temperature=0.0),
    "Continue speech": Mode("audio", "speech"),
    "Continue a text": Mode("text", "text"),
    "Change the voice": Mode("audio", "voice"),
}


@dataclass(frozen=True)
class Asked:
    """What the fields of a page hold. audio, voice: paths of files that the page keeps, or a speaker's name."""

    mode: str
    text: str | None = None
    audio: str | None = None
    voice: str | None = None
    seed: float | None = 0
    speed: float | None = 1.0
    temperature: float | None = Sampling.temperature


@dataclass(frozen=True)
class Shown:
    """message, details: HTML. text: the answer, or what was to be spoken. sound: (rate, int16 samples [N])."""

    message: str = ""
    text: str | None = None
    sound: tuple[int, np.ndarray] | None = None
    details: str = ""


def modes_of(chain: Chain) -> list[str]:
    """The names of the `MODES` that the opened runs can do."""
    language, hears = chain.language, chain.inventory is not None and not chain.inventory.precomputed
    reads = language is not None and language.vocabulary.has_text

    def can(mode: Mode) -> bool:
        if mode.given == "audio" and not hears:
            return False
        if mode.to == "voice":
            return chain.voice is not None
        return reads if "text" in (mode.given, mode.to) else language is not None

    return [name for name, mode in MODES.items() if can(mode)]


def speakers_of(chain: Chain) -> list[str]:
    """The speakers that the voice has by name, of which one may be chosen."""
    return [] if chain.voice is None or chain.voice.clones else list(map(str, getattr(chain.voice, "speakers", ())))


def about(chain: Chain) -> str:
    """One line of HTML on what is opened."""
    parts = []
    if chain.language:
        parts.append("language model of " + ("text and speech" if chain.language.vocabulary.has_text else "speech"))
    if chain.inventory:
        parts.append(f"{chain.inventory.size} units of {chain.inventory.name}")
    if chain.voice is None:
        parts.append("no voice: speech is shown as units")
    else:
        speakers = len(speakers_of(chain))
        own = f"{speakers} speakers" if speakers else "one voice of its own"
        kind = "in the voice of a recording" if chain.voice.clones else own
        parts.append(f"sound at {chain.voice.sample_rate / 1000:g} kHz, {kind}")
    return html.escape("; ".join(parts))


def show(chain: Chain, asked: Asked, read: Callable[[str], bytes]) -> Shown:
    """The answer, or a message why there is none. read: the bytes of a file that the page keeps."""
    try:
        request, options, notes = _request(chain, asked, read)
        (answer,) = chain.answer([request], **options)
    except (ValueError, OSError, FloatingPointError) as error:
        return failure(str(error))
    if answer.units is not None and not len(answer.units):
        return failure("the language model said nothing: ask again with another seed")
    return _shown(answer, request.text, notes)


def failure(message: str) -> Shown:
    """A message in the place of an answer."""
    return Shown(message=f'<p class="failure" role="alert">{html.escape(message)}</p>')


def _request(chain: Chain, asked: Asked, read: Callable[[str], bytes]) -> tuple[Request, dict, list[str]]:
    if asked.mode not in modes_of(chain):
        raise ValueError("choose what is to be done")
    mode, notes = MODES[asked.mode], []

    def clip(path: str, where: str) -> Clip:
        found = chain.recording(read(path), where)
        notes.extend(f"{where}: {note}" for note in found.notes if "resampled" not in note)
        return found

    text = audio = voice = None
    if mode.given == "text":
        text = (asked.text or "").strip()
        if not text:
            raise ValueError("there is no text: type what is to be " + ("said" if mode.to == "speech" else "continued"))
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"the text has {len(text)} characters: give at most {MOST_CHARACTERS}")
    elif not asked.audio:
        raise ValueError("there is no recording: record one or upload one")
    else:
        audio = clip(asked.audio, "the recording")
    if asked.voice and mode.to != "text" and chain.voice:
        if chain.voice.clones:
            voice = clip(asked.voice, "the recording of the voice")
        elif names := speakers_of(chain):
            if asked.voice not in names:
                raise ValueError("there is no speaker of that name: choose one of the list")
            voice = asked.voice
    options = dict(
        seed=int(_number("seed", asked.seed, 0, MOST_SEED)),
        speed=_number("speed", asked.speed, *SPEEDS),
        sampling=dict(temperature=_number("temperature", asked.temperature, *TEMPERATURES)),
    )
    return Request(mode.to, text=text, audio=audio, voice=voice), options, notes


def _number(name: str, value: float | None, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the {name} is no number")
    if not least <= value <= most:
        raise ValueError(f"the {name} is {value:g}: give one from {least:g} to {most:g}")
    return value


def _shown(answer: Answer, given: str | None, notes: list[str]) -> Shown:
    notes = list(notes)
    if not answer.stopped:
        notes.append("the answer was cut at the length limit")
    if answer.too_long:
        notes.append("prompt and answer are longer than what the language model saw in training")
    if answer.text is not None and not answer.text.strip():
        notes.append("the answer has no words")
    message = "".join(f'<p class="warning">{html.escape(note)}</p>' for note in notes)
    parts, sound = [], None
    if answer.samples is not None:
        samples_N = np.nan_to_num(answer.samples, nan=0.0, posinf=0.0, neginf=0.0)
        sound = answer.sample_rate, np.round(np.clip(samples_N, -1, 1) * 32767).astype(np.int16)
        picture = base64.b64encode(draw_sound(samples_N, answer.sample_rate)).decode()
        seconds = len(samples_N) / answer.sample_rate
        alt = "waveform above its mel spectrogram"
        parts.append(_part(f"Sound, {seconds:.2f} s", f'<img alt="{alt}" src="data:image/png;base64,{picture}">'))
    if answer.units is not None:
        tokens = html.escape("".join(f"[Hu{int(unit)}]" for unit in answer.units.ids))
        strip = unit_strip(answer.units.ids, _COLUMNS)
        parts.append(_part("Units", f"{strip}<details><summary>as tokens</summary><code>{tokens}</code></details>"))
    times = {name: spent for name, spent in answer.seconds.items() if spent >= 0.005}
    times["in all"] = sum(answer.seconds.values())
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{spent:.2f} s</td></tr>" for name, spent in times.items())
    parts.append(_part("Time", f'<table class="seconds">{rows}</table>'))
    return Shown(message, given if answer.text is None else answer.text, sound, "".join(parts))


def _part(title: str, body: str) -> str:
    return f"<section><h3>{html.escape(title)}</h3>{body}</section>"
