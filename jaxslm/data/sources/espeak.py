"""espeak-ng through ctypes: speech with exact word times, for the demo corpus.

The library comes in the `espeakng-loader` wheel. It is GPL-3, so it stays an optional extra, loaded only for demo data.
Interface: espeak-ng 1.52, src/include/espeak-ng/speak_lib.h.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile

import numpy as np

from jaxslm.units.alignment import Word

_SYNCHRONOUS, _DONT_EXIT, _CHARACTER, _UTF8 = 2, 1 << 15, 1, 1
_RATE, _VOLUME, _PITCH = 1, 2, 3
_WORD, _END, _LAST = 1, 5, 0
_AUDIBLE = 0.003  # of full scale
_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


class Synthesizer:
    """One private instance of espeak-ng; not for several threads at once.

    espeak-ng keeps state (phases of flutter, noise and echo) in global variables which its own reset leaves alone, and
    seeds its noise from the clock. So each instance loads its own copy of the library and sets the seed: the same calls
    in the same order give the same samples, in any process and whatever else was synthesised there.
    """

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError as error:
            raise ValueError("the demo corpus is spoken by espeak-ng: pip install 'jaxslm[demo]'") from error
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps a loaded file
            self._library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder))
        data = os.fsencode(espeakng_loader.get_data_path())
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if self.rate <= 0:
            raise ValueError("espeak-ng did not start: pip install --force-reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        self._pcm: list[bytes] = []
        self._events: list[tuple[int, int, int]] = []  # type, position in the text, sample
        self._callback = _Callback(self._receive)  # espeak-ng holds only the address: keep the object alive
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(
        self, text: str, voice: str, *, words_per_minute: int = 165, pitch: int = 50
    ) -> tuple[np.ndarray, tuple[Word, ...]]:
        """Samples (float32, at `self.rate` Hz) and one Word an item of `text.split()`.

        A word ends where the next one starts, or with its last audible sample before a pause. pitch: 0 to 99,
        50 is the voice's own. ValueError for an unknown voice or a text without words.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(
                f"espeak-ng has no voice {voice!r}; its variants are listed by `espeak-ng --voices=variant`"
            )
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._library.espeak_SetParameter(_VOLUME, 70, 0)  # some voices clip at 100
        self._pcm.clear()
        self._events.clear()
        text = " ".join(text.split())
        spoken = _separate(text.split()).encode()
        if not text or self._library.espeak_Synth(spoken, len(spoken) + 1, 0, _CHARACTER, 0, _UTF8, None, None):
            raise ValueError(f"espeak-ng cannot say {text!r}")
        samples = np.frombuffer(b"".join(self._pcm), np.int16).astype(np.float32) / 2**15
        words = _words(text, self._events, samples, self.rate)
        return samples[: round((words[-1].end + 0.05) * self.rate)], words  # without the pause at the end

    def _receive(self, pcm, n_samples: int, events) -> int:
        if n_samples > 0:
            self._pcm.append(ctypes.string_at(pcm, 2 * n_samples))
        i = 0
        while events[i].type != _LAST:
            if events[i].type in (_WORD, _END):
                self._events.append((events[i].type, events[i].text_position, events[i].sample))
            i += 1
        return 0  # go on


def _separate(items: list[str]) -> str:
    """The text with no-break spaces inside clauses; else espeak-ng reads pairs such as "in the" as one word."""
    return "".join(item + (_NO_BREAK_SPACE if item[-1].isalnum() else " ") for item in items).strip()


def _words(text: str, events: list[tuple[int, int, int]], samples: np.ndarray, rate: int) -> tuple[Word, ...]:
    items, words = text.split(), []
    for (kind, position, start), (following, _, end) in zip(
        events, [*events[1:], (_END, 0, len(samples))], strict=True
    ):
        if kind != _WORD:
            continue
        index = len(text[: position - 1].split())  # after a full stop the position is that of the space before the word
        assert index == len(words) < len(items), f"espeak-ng times other words than those of {text!r}"
        if following == _END:
            end = start + int(np.flatnonzero(np.abs(samples[start:end]) > _AUDIBLE)[-1]) + 1
        words.append(Word(items[index], start / rate, end / rate))
    assert len(words) == len(items), f"espeak-ng gave no time for some words of {text!r}"
    return tuple(words)
