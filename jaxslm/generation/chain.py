"""Text or speech in, text or sound out: a language model over units, durations, an acoustic stage, a waveform.

| given | to=text      | to=speech     | to=voice                         |
|-------|--------------|---------------|----------------------------------|
| audio | transcript   | continuation  | the same in the voice of another |
| text  | continuation | the text said | -                                |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import Clip, read_audio, write_wav
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import NEW_TOKENS, Response, check_characters, check_modalities, complete, prompt_ids
from jaxslm.models.decoder import Decoder
from jaxslm.row_keys import keys_of
from jaxslm.stopwatch import Stopwatch
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence, at_speed
from jaxslm.vocabulary import Vocabulary

TO = ("text", "speech", "voice")
LONGEST_VOICE = 3600.0  # seconds of a recording of which only the first few are heard


class Voice(Protocol):
    """What makes sound of units: the masked stage with its codec, a unit vocoder."""

    sample_rate: int
    untimed: str  # why it gives units of a language model no durations; "" where it does
    clones: bool  # takes on the voice of a recording; else it has speakers of its own
    inventory: UnitInventory | None  # to hear recordings with

    def check_units(self, sha256: str) -> None:
        """Raises ValueError for units of another inventory than its own."""

    def prompt(self, given: Clip | str, where: str, *, from_end: bool = False) -> Any:
        """The voice of the begin, or the end, of a recording, or the speaker of a name, for `speak`.

        Raises ValueError where it cannot be had.
        """

    def timed(self, units: Sequence[UnitSequence], *, speed: float, temperature: float, key: jax.Array) -> list:
        """The units with durations of its own. key: one, or one for each, also below."""

    def speak(self, units: Sequence[UnitSequence], prompts: Sequence[Any], key: jax.Array, watch: Stopwatch) -> list:
        """Samples float32 [N] of each, None for any voice."""

    def check_stream(self) -> None:
        """Raises ValueError where it has no `stream(units, prompt, key)`, samples of one sequence as they are made."""


@dataclass(frozen=True)
class Language:
    """A language model over text and units. inventory: to hear with; None where units come with the data.

    limits: {"text": most new tokens, "speech": most new units}. context: tokens that it saw in training.
    """

    model: Decoder
    vocabulary: Vocabulary
    tokenizer: Any
    inventory: UnitInventory | None
    limits: Mapping[str, int] = field(default_factory=dict)
    context: int = 0


@dataclass(frozen=True)
class Request:
    """One of `text` and `audio`, and what it is to become. voice: a recording or, of a vocoder, a speaker's name."""

    to: str
    text: str | None = None
    audio: Clip | None = None
    voice: Clip | str | None = None
    id: str = ""


@dataclass(frozen=True)
class Answer:
    """text, or units and, if there is a voice and anything to say, samples [N] at `sample_rate` Hz.

    stopped: False where the length limit cut it. too_long: with its prompt it is longer than the language model's
    context. seconds: that each stage took for the whole batch.
    """

    id: str = ""
    text: str | None = None
    units: UnitSequence | None = None
    samples: np.ndarray | None = None
    sample_rate: int = 0
    stopped: bool = True
    too_long: bool = False
    seconds: Stopwatch = field(default_factory=Stopwatch)

    def save(self, path: str | Path) -> None:
        """Writes the sound as a 16-bit WAV file. Raises ValueError for an answer without one."""
        if self.samples is None:
            raise ValueError(f"this answer has no sound to write to {path}: ask for speech, with a voice")
        write_wav(Path(path), self.samples, self.sample_rate)

    def __str__(self) -> str:
        return self.text if self.text is not None else "".join(f"[Hu{id}]" for id in self.units.ids)


class Chain:
    """Answers requests, many at once; an answer depends on the seed and its own place alone, but for rounding.

    Raises ValueError for a voice of other units than the language model's.
    """

    def __init__(self, language: Language | None, voice: Voice | None):
        self.language, self.voice = language, voice
        self.inventory = language.inventory if language else voice and voice.inventory
        if language and voice:
            voice.check_units(language.vocabulary.unit_inventory_sha256)

    def answer(
        self,
        requests: Sequence[Request],
        *,
        seed: int = 0,
        sampling: Mapping[str, Any] = {},
        speed: float = 1.0,
        duration_temperature: float = 0.0,
        sound: bool = True,
        places: Sequence[int] | None = None,
        prompts: Sequence[Any] | None = None,
        watch: Stopwatch | None = None,
    ) -> list[Answer]:
        """Answers in the order of the requests.

        Args:
          places: a number for each request, by which it draws; 0, 1, 2 ... by default.
          sampling: fields of `Sampling`; `max_new_tokens` is the language model's limit where it is not given.
          speed: of units that come from the language model as of `durations.predict`, of others as of `units.at_speed`.
          duration_temperature: see `durations.predict`; what was heard keeps its durations.
          sound: False leaves speech as units.
          prompts: what `prompt_of` gives for each request, where it is known already.
          watch: takes the time that the answers then have as `seconds`.
        Raises:
          ValueError: a request that cannot be answered, by its id; what is asked of whom has it not.
          FloatingPointError: a model whose logits or samples are not finite.
        """
        watch = Stopwatch() if watch is None else watch
        keys_N = keys_of(jax.random.key(seed), len(requests))
        if places is not None:
            keys_N = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.asarray(places))
        for request in requests:
            self.check(request)
        if sound and self.voice and prompts is None and any(request.to != "text" for request in requests):
            with watch("prompts"):  # what is wrong with them is known before the language model has run
                prompts = [None if request.to == "text" else self.prompt_of(request) for request in requests]
        heard = self._heard(requests, watch)
        answers = self._said(requests, heard, sampling, _drawn(keys_N, 0), watch)
        spoken = [i for i, answer in enumerate(answers) if answer.units is not None and len(answer.units)]
        if sound and self.voice and spoken:
            own_N = keys_N[np.array(spoken)]
            units = self._timed(requests, answers, spoken, speed, duration_temperature, _drawn(own_N, 1), watch)
            sounds = self.voice.speak(units, [prompts[i] for i in spoken], _drawn(own_N, 2), watch)
            for i, each, samples_N in zip(spoken, units, sounds, strict=True):
                rate = self.voice.sample_rate
                answers[i] = replace(answers[i], units=each, samples=_finite(samples_N), sample_rate=rate)
        return [replace(answer, seconds=watch) for answer in answers]

    def stream(
        self,
        request: Request,
        *,
        seed: int = 0,
        speed: float = 1.0,
        duration_temperature: float = 0.0,
        watch: Stopwatch | None = None,
        **options: Any,
    ) -> tuple[Answer, Iterator[np.ndarray]]:
        """(an answer without samples, its sound as it is made). options: as `answer`.

        Raises ValueError as `answer`, for a voice that cannot stream, and where nothing was said.
        """
        self.check(request)
        if self.voice is None:
            raise ValueError("there is nothing to speak with: name an acoustic stage (--acoustic=WORKDIR)")
        self.voice.check_stream()
        watch = Stopwatch() if watch is None else watch
        with watch("prompts"):
            prompt = self.prompt_of(request)
        (answer,) = self.answer([request], seed=seed, sound=False, watch=watch, **options)
        if not len(answer.units or ()):
            raise ValueError("the language model said nothing: ask again with another --seed")
        keys_N = keys_of(jax.random.key(seed), 1)
        (units,) = self._timed([request], [answer], [0], speed, duration_temperature, _drawn(keys_N, 1), watch)
        chunks = self.voice.stream(units, prompt, _drawn(keys_N, 2)[0])
        return replace(answer, units=units, sample_rate=self.voice.sample_rate), map(_finite, chunks)

    def say(self, text: str, *, voice: str | Path | None = None, **options: Any) -> Answer:
        """A text spoken, in the voice of a recording or by a speaker of that name. options: as `answer`."""
        return self._one(Request("speech", text=text, voice=self.voice_of(voice)), options)

    def transcribe(self, audio: str | Path, **options: Any) -> Answer:
        """The text of a recording."""
        return self._one(Request("text", audio=self.recording(audio)), options)

    def go_on(self, *, text: str | None = None, audio: str | Path | None = None, **options: Any) -> Answer:
        """A continuation of a text or of a recording."""
        if audio is None:
            return self._one(Request("text", text=text), options)
        return self._one(Request("speech", audio=self.recording(audio)), options)

    def convert(self, audio: str | Path, voice: str | Path | None, **options: Any) -> Answer:
        """What a recording says, in another voice."""
        return self._one(Request("voice", audio=self.recording(audio), voice=self.voice_of(voice)), options)

    def _one(self, request: Request, options: Mapping[str, Any]) -> Answer:
        return self.answer([request], **options)[0]

    def recording(self, source: str | Path | bytes, where: str = "", max_seconds: float = 60.0) -> Clip:
        """The audio of a file, or of its bytes, for a request. where: names it in messages, if not its path.

        Raises ValueError for one that is not of use.
        """
        rate = self.voice.sample_rate if self.voice else SAMPLE_RATE
        source, where = (source, where) if isinstance(source, bytes) else (Path(source), where or str(source))
        return read_audio(source, where=where, sample_rate=rate, min_seconds=0.0, max_seconds=max_seconds)

    def voice_of(self, name: str | Path | None) -> Clip | str | None:
        """What a request takes as its voice: a file's audio, or the speaker of a vocoder."""
        if name is None or self.voice is None or not self.voice.clones:
            return None if name is None else str(name)
        return self.recording(name, max_seconds=LONGEST_VOICE)

    def check(self, request: Request) -> None:
        """Raises ValueError, saying what is missing, for a request that cannot be answered."""
        where = f"{request.id}: " if request.id else ""
        if request.to not in TO:
            raise ValueError(f"{where}to={request.to!r} is not one of {', '.join(TO)}")
        if (request.text is None) == (request.audio is None):
            raise ValueError(f"{where}give one of text and audio, not both and not neither")
        if request.to == "voice":
            if request.audio is None or self.voice is None or self.inventory is None:
                raise ValueError(f"{where}to=voice takes audio, and needs an acoustic stage (--acoustic=WORKDIR)")
        elif self.language is None:
            raise ValueError(f"{where}to={request.to} needs a language model (--workdir=WORKDIR)")
        elif request.voice is not None and (request.to != "speech" or self.voice is None):
            raise ValueError(f"{where}a voice is for speech, and needs an acoustic stage (--acoustic=WORKDIR)")
        else:
            check_modalities(self.language.vocabulary, text=request.text, to=request.to)
        if request.text is not None:
            self._prompt(request, None)

    def prompt_of(self, request: Request) -> Any:
        """What the voice takes on for a request: speech that goes on keeps the voice it had, if nothing is asked.

        Raises ValueError where the voice cannot say it so.
        """
        if request.to == "speech" and self.voice.untimed:
            raise ValueError(self.voice.untimed)
        where = f"the voice of {request.id}" if request.id else "the voice"
        if request.voice is not None:
            return self.voice.prompt(request.voice, where)
        if request.to == "speech" and request.audio is not None and self.voice.clones:
            return self.voice.prompt(request.audio, where, from_end=True)
        return None

    def _heard(self, requests: Sequence[Request], watch: Stopwatch) -> list[UnitSequence | None]:
        clips = [i for i, request in enumerate(requests) if request.audio is not None]
        if clips and self.inventory is None:
            raise ValueError("an audio prompt needs the unit inventory the model was trained with")
        if clips and self.language and self.inventory.sha256 != self.language.vocabulary.unit_inventory_sha256:
            raise ValueError(
                f"unit inventory {self.inventory.name} ({self.inventory.sha256[:12]}) is not the one of the language "
                f"model ({self.language.vocabulary.unit_inventory_sha256[:12]}): its unit ids mean other sounds"
            )
        found: list[UnitSequence | None] = [None] * len(requests)
        if not clips:
            return found
        with watch("units"):
            units = self.inventory.encode_batch([requests[i].audio.heard for i in clips])
        for i, each in zip(clips, units, strict=True):
            found[i] = each
        return found

    def _said(self, requests, heard, sampling: Mapping[str, Any], keys_N: jax.Array, watch: Stopwatch) -> list[Answer]:
        answers = [Answer(id=r.id, units=heard[i]) for i, r in enumerate(requests)]  # of to=voice: what was heard
        groups: dict[tuple[str, str], list[int]] = {}
        for i, request in enumerate(requests):
            if request.to != "voice":
                groups.setdefault(("speech" if request.text is None else "text", request.to), []).append(i)
        for (source, to), members in groups.items():
            with watch("language model"):
                asked = [(requests[i], heard[i]) for i in members]
                responses = self._responses(source, to, asked, sampling, keys_N[np.array(members)])
            for i, response in zip(members, responses, strict=True):
                answers[i] = self._answer(requests[i], response)
        return answers

    def _responses(self, source, to, asked, sampling: Mapping[str, Any], key: jax.Array) -> list[Response]:
        language = self.language
        limit = language.limits.get(to, NEW_TOKENS[source, to])
        settings = Sampling(**{"max_new_tokens": limit, **sampling})
        prompts = [self._prompt(request, units) for request, units in asked]
        how = dict(to=to, sampling=settings, key=key)
        return complete(language.model, language.vocabulary, language.tokenizer, prompts, **how)

    def _prompt(self, request: Request, units: UnitSequence | None) -> tuple[int, ...]:
        content = {"text": request.text} if units is None else {"units": units.ids}
        vocabulary, tokenizer = self.language.vocabulary, self.language.tokenizer
        try:
            ids = prompt_ids(vocabulary, tokenizer, to=request.to, **content)
            if units is None:
                check_characters(vocabulary, tokenizer, request.text)
            return ids
        except ValueError as error:
            raise ValueError(f"{request.id}: {error}" if request.id else str(error)) from error

    def _answer(self, request: Request, response: Response) -> Answer:
        length = len(response.prompt_ids) + len(response.ids)
        too_long = 0 < self.language.context < length
        answer = Answer(id=request.id, text=response.text, stopped=response.stopped, too_long=too_long)
        if response.units is None:
            return answer
        rate = self.inventory.frame_rate if self.inventory else 1.0
        return replace(answer, units=UnitSequence(response.units, np.ones(len(response.units)), rate))

    def _timed(self, requests, answers, spoken, speed, temperature, key, watch) -> list[UnitSequence]:
        """Units to speak, with durations: those that were heard have them."""
        units = [answers[i].units for i in spoken]
        heard = [requests[i].to == "voice" for i in spoken]
        if speed != 1.0:
            units = [at_speed(each, speed) if known else each for each, known in zip(units, heard, strict=True)]
        if asked := [n for n, known in enumerate(heard) if not known]:
            key = key[np.array(asked)]
            with watch("durations"):
                made = self.voice.timed([units[n] for n in asked], speed=speed, temperature=temperature, key=key)
            for n, each in zip(asked, made, strict=True):
                units[n] = each
        return units


def _drawn(keys_N: jax.Array, what: int) -> jax.Array:
    """Keys of the same rows for one of several stages."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys_N, what)


def _finite(samples_N: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples_N).all():
        raise FloatingPointError(
            "what speaks gives samples that are not finite: its training diverged, use another run"
        )
    return samples_N
