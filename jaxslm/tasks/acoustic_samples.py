"""What the masked acoustic stage makes of the units of held-out utterances while it is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxslm.acoustic.frames import units_at_frames
from jaxslm.acoustic.parallel import Prompt
from jaxslm.acoustic.voices import PROMPT_SECONDS, MaskedVoice
from jaxslm.audio.io import decode_clip, resample
from jaxslm.codec.model import Codec
from jaxslm.data.code_crops import CodeCrops
from jaxslm.evaluation.reconstructions import Recording
from jaxslm.tasks.codec_samples import SECONDS
from jaxslm.tasks.sounds import as_media, write_sounds
from jaxslm.training.metrics import Picture, Sound

CODEC, RESYNTHESIS, CONTINUED, CHANGED = "codec", "resynthesis", "continued", "other_voice"


class Resynthesis:
    """The first held-out utterances, or beginnings of them, through the codec alone and from their units: without a
    prompt, as continuations of their own first seconds, and in the voice of the next utterance.

    Args:
      config: `utterances`, how many; `guidance`, see Unmasking.
    """

    def __init__(self, heldout: CodeCrops, codec: Codec, config: Mapping):
        self.config, rate = config, codec.config.sample_rate
        self.originals: list[Recording] = []
        self.clips: list[Prompt] = []  # units and true codes of each
        for index in heldout.chosen[: config["utterances"]]:
            utterance = heldout.records[index]
            units, codes = utterance.units[heldout.inventory], utterance.codes[heldout.codec]
            n_frames = min(len(codes), round(SECONDS * codes.frame_rate))
            self.clips.append(
                Prompt(units_at_frames(units, codes.frame_rate, n_frames), codes.ids[:n_frames, : heldout.n_levels])
            )
            heard_N = np.zeros(n_frames * codec.hop, np.float32)
            if utterance.audio:
                clip = decode_clip(utterance.audio)
                found_N = resample(clip.samples, clip.rate, rate)[: len(heard_N)]
                heard_N[: len(found_N)] = found_N
            self.originals.append(Recording(utterance.id, heard_N, utterance.text))

    def write(self, voice: MaskedVoice, folder: Path, step: int) -> str:
        """Writes sounds, scores and page, see `write_sounds`; every process calls it, and the first writes."""
        made = self._made(voice)
        if jax.process_index():
            return ""
        facts = dict(units=voice.facts["inventory"]["name"], codec=voice.facts["codec"]["name"])
        scored = (CODEC, RESYNTHESIS, CONTINUED)
        return write_sounds(self.originals, made, voice.sample_rate, folder, step, scored=scored, facts=facts)

    def media(self, voice: MaskedVoice) -> list[Sound | Picture]:
        """The same for TensorBoard."""
        made = self._made(voice)
        return [] if jax.process_index() else as_media(self.originals, made, voice.sample_rate)

    def _made(self, voice: MaskedVoice) -> dict[str, Sequence[np.ndarray]]:
        voice = voice.with_settings(guidance=self.config["guidance"])
        key, none = jax.random.key(0), [voice.stage.no_prompt()] * len(self.clips)
        most = min(round(PROMPT_SECONDS * voice.frame_rate), voice.stage.longest_prompt)
        lengths = [min(most, len(clip.units) // 2) for clip in self.clips]
        prompts = [Prompt(c.units[:n], c.codes[:n]) for c, n in zip(self.clips, lengths, strict=True)]
        units = [clip.units for clip in self.clips]
        rests = voice.stage([each[n:] for each, n in zip(units, lengths, strict=True)], prompts, key)
        made = {
            CODEC: [clip.codes for clip in self.clips],
            RESYNTHESIS: voice.stage(units, none, key),
            CONTINUED: [np.concatenate([p.codes, rest]) for p, rest in zip(prompts, rests, strict=True)],
            CHANGED: voice.stage(units, prompts[1:] + prompts[:1], key),
        }
        return {name: voice.decode(codes) for name, codes in made.items()}
