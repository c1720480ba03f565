"""Speech and text in, speech or text out: the prompts of SpiRit-LM with task markers, and what comes back.

| from   | to     | prompt                      | answer       |
|--------|--------|-----------------------------|--------------|
| speech | text   | `<s>[Speech][Hu..][ASR]`    | transcript   |
| text   | speech | `<s>[Text]text[TTS]`        | units        |
| speech | speech | `<s>[Speech][Hu..]`         | continuation |
| text   | text   | `<s>[Text]text`             | continuation |

Source: SpiRit-LM (Nguyen et al. 2024), section 3 and the "+ASR+TTS" variant of its ablations. A model of speech alone
(GSLM, TWIST, Slam) only continues speech, from `<s>[Hu..]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jaxslm.generation.sampler import Sampling, generate
from jaxslm.models.decoder import Decoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import UNIT_PATTERN, Vocabulary

# (from, to) -> most new tokens: SpiRit-LM's own limits, whose units are also about 25 a second
NEW_TOKENS = {("speech", "text"): 50, ("text", "text"): 50, ("text", "speech"): 200, ("speech", "speech"): 300}


@dataclass(frozen=True)
class Response:
    """One answer: `text` or `units` (unit indices, without their durations), whichever was asked for.

    `prompt_ids` and `ids` are vocabulary ids; `stopped` says that the model ended by itself, not at the length limit.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    stopped: bool
    text: str | None = None
    units: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """The text, or the units as `[Hu3][Hu17]...`."""
        return self.text if self.text is not None else "".join(map(UNIT_PATTERN.format, self.units))


def check_modalities(vocabulary: Vocabulary, *, text: str | None, to: str) -> None:
    """Raises ValueError if a model of speech alone is given a text, or asked for one."""
    if not vocabulary.has_text and (text is not None or to == "text"):
        raise ValueError(
            "this model has no text (it was trained with data.tokenizer='none'): give it speech and ask for speech "
            "(--audio=FILE --to=speech), or train with a tokenizer"
        )


def prompt_ids(
    vocabulary: Vocabulary, tokenizer, *, text: str | None = None, units: Sequence[int] | None = None, to: str
) -> tuple[int, ...]:
    """Vocabulary ids of the prompt (table above) for a text or for deduplicated unit indices.

    Raises:
      ValueError: not exactly one of text and units, no words, no units, or a unit or modality the vocabulary does not
        have.
    """
    if to not in ("text", "speech"):
        raise ValueError(f"to={to!r}: the answer is 'text' or 'speech'")
    if (text is None) == (units is None):
        raise ValueError("give one of text and speech, not both and not neither")
    check_modalities(vocabulary, text=text, to=to)
    if text is not None:
        if not any(character.isalnum() for character in text):
            raise ValueError(f"the text {text!r} has no words: give at least one letter or digit")
        task = ["[TTS]"] if to == "speech" else []
        content = [vocabulary.id("[Text]"), *tokenizer.encode(text)]
    else:
        block = vocabulary.block("units")
        units = np.asarray(units, int)
        if units.size == 0 or units.min() < 0 or units.max() >= block.size:
            raise ValueError(f"speech prompts need units from 0 to {block.size - 1}; got {units.tolist()[:20]}")
        task = ["[ASR]"] if to == "text" else []
        content = [*vocabulary.speech_start, *(block.first + units).tolist()]
    return (vocabulary.bos_id, *content, *map(vocabulary.id, task))


def check_characters(vocabulary: Vocabulary, tokenizer, text: str) -> None:
    """Raises ValueError naming characters of a text that the tokenizer has no id for."""
    unknown = set(vocabulary.text_special_ids)

    def known(character: str) -> bool:
        ids = tokenizer.encode(character)
        # Some tokenizers drop what they do not know, others have a token for it, which may be no special one.
        return not unknown & set(ids) and tokenizer.decode(ids).strip() not in ("", getattr(tokenizer, "unknown", ""))

    if names := " ".join(c for c in dict.fromkeys(text) if not c.isspace() and not known(c)):
        raise ValueError(f"the text has characters that the tokenizer does not know ({names}): write it without them")


def complete(
    model: Decoder,
    vocabulary: Vocabulary,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    to: str,
    sampling: Sampling,
    key: jax.Array,
) -> list[Response]:
    """Answers a batch of prompts (vocabulary ids) in one modality; an answer ends at end of sequence or at any marker.

    `key` as for `sampler.generate`: row b draws from `fold_in(key, b)`, whatever the other rows are.
    """
    prompt_BxP = np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    mask_BxP = np.arange(prompt_BxP.shape[1]) < np.array([len(p) for p in prompts])[:, None]
    prompt_BxP[mask_BxP] = np.concatenate(prompts)
    tokens_BxN, lengths_B = generate(
        model,
        prompt_BxP,
        mask_BxP,
        key,
        sampling,
        allowed_V=vocabulary.modality_mask(to, stop=True),
        stop_ids=(vocabulary.eos_id, *vocabulary.marker_ids),
    )
    first_unit = vocabulary.block("units").first
    responses = []
    for prompt, tokens_N, length in zip(prompts, tokens_BxN.tolist(), lengths_B.tolist(), strict=True):
        ids = tuple(tokens_N[:length])
        answer = {"text": tokenizer.decode(ids)} if to == "text" else {"units": tuple(i - first_unit for i in ids)}
        responses.append(Response(tuple(map(int, prompt)), ids, length < sampling.max_new_tokens, **answer))
    return responses


def respond(
    model: Decoder,
    vocabulary: Vocabulary,
    tokenizer,
    inventory: UnitInventory | None,
    *,
    text: str | None = None,
    audio: np.ndarray | None = None,
    units: Sequence[int] | None = None,
    to: str,
    sampling: Sampling | None = None,
    key: jax.Array,
) -> Response:
    """Answers one text, one recording (float32 samples at 16 kHz, see `audio.io.read_audio`) or one unit sequence.

    `inventory` is needed for audio only. `sampling` defaults to `Sampling` with the length of `NEW_TOKENS`.

    Raises:
      ValueError: as `prompt_ids`, or an inventory whose units are not those of the vocabulary.
    """
    if audio is not None:
        if inventory is None:
            raise ValueError("an audio prompt needs the unit inventory the model was trained with")
        if inventory.sha256 != vocabulary.unit_inventory_sha256:
            raise ValueError(
                f"unit inventory {inventory.name} (sha256 {inventory.sha256[:12]}..) is not the one of the vocabulary "
                f"({vocabulary.unit_inventory_sha256[:12]}..): its unit ids mean other sounds; "
                "use the one of the training data"
            )
        if text is not None or units is not None:
            raise ValueError("give one of text, audio and units")
        units = inventory.encode(audio).ids
    prompt = prompt_ids(vocabulary, tokenizer, text=text, units=units, to=to)
    source = "speech" if text is None else "text"
    sampling = sampling or Sampling(max_new_tokens=NEW_TOKENS[source, to])
    return complete(model, vocabulary, tokenizer, [prompt], to=to, sampling=sampling, key=key)[0]
