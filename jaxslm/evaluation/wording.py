"""Options of likelihood suites as token ids: `<s>`, a marker where the modality changes, text and units.

Text behind speech is written as in interleaved training data, with the space that a word has behind another. Scored
are text and units of the option; not `<s>`, not markers, not the context and not, unless asked for, `</s>`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.scoring import Tokens
from jaxslm.units.units import deduplicate
from jaxslm.vocabulary import Vocabulary

_WORD = "a"  # one that any tokenizer has
Audio = tuple[Path, ...]


def protocol(vocabulary: Vocabulary, choices: Sequence[Choice], deduplicated: bool, score_end: bool) -> str:
    """What every table says about how its figures were made."""
    whole = "an option is scored whole, with what it shares with the others"
    context = "the context is not scored" if any(choice.context for choice in choices) else whole
    rows = (row for choice in choices for row in (choice.context, *choice.options))
    kinds = {"speech" if part.is_speech else "text" for row in rows for part in row}
    starts = {"text": vocabulary.text_start, "speech": vocabulary.speech_start}
    parts = [
        "sum and mean of the log-likelihoods of an option's text and units, over the whole vocabulary",
        context,
        f"<s> and markers are not scored, </s> is {'scored, too' if score_end else 'not scored'}",
        *(
            f"{name} begins with <s>{''.join(map(vocabulary.token, ids))}"
            for name, ids in starts.items()
            if name in kinds
        ),
        *(["text behind speech with the space that a word has behind another"] if len(kinds) == 2 else []),
        *([f"units are {'' if deduplicated else 'not '}deduplicated"] if "speech" in kinds else []),
        "a tie counts one half",
    ]
    return "; ".join(parts)


def word_choice(
    choice: Choice,
    vocabulary: Vocabulary,
    tokenizer: Any,
    units: Mapping[Audio, np.ndarray],
    *,
    deduplicated: bool = True,
    score_end: bool = False,
) -> list[Tokens]:
    """The ids of each option behind the context; `units` has those of every sound.

    deduplicated: as of the model's inventory; units that a suite gives are then joined where they repeat.

    Raises ValueError: a modality or unit that the vocabulary has not, or an option without a token to score.
    """
    how = (vocabulary, tokenizer, units, deduplicated, score_end)
    return [_tokens(choice, option, *how) for option in choice.options]


def sounds(choices: Sequence[Choice]) -> list[Audio]:
    """All sounds of the choices, each once, in their order."""
    parts = (part for c in choices for row in (c.context, *c.options) for part in row)
    return list(dict.fromkeys(part.audio for part in parts if part.audio))


def _tokens(
    choice, option: Sequence[Part], vocabulary, tokenizer, units, deduplicated: bool, score_end: bool
) -> Tokens:
    ids, scored = [vocabulary.bos_id], [False]
    parts = [(part, False) for part in choice.context] + [(part, True) for part in option]
    at, spoken = 0, False
    while at < len(parts):
        run = [parts[at]]
        while at + len(run) < len(parts) and parts[at + len(run)][0].is_speech == run[0][0].is_speech:
            run.append(parts[at + len(run)])
        at += len(run)
        if run[0][0].is_speech:
            start, words = vocabulary.speech_start, _speech(run, vocabulary, units, deduplicated, choice.id)
        else:
            if not vocabulary.has_text:
                raise ValueError(f"{choice.id}: it has text, and this model is one of speech alone")
            start, words = vocabulary.text_start, _text(run, tokenizer, spoken)
        spoken = run[0][0].is_speech
        ids += [*start, *(i for i, _ in words)]
        scored += [False] * len(start) + [is_scored for _, is_scored in words]
    if score_end:
        ids, scored = [*ids, vocabulary.eos_id], [*scored, True]
    if not any(scored):
        raise ValueError(f"{choice.id}: an option has no text and no units, so there is nothing to score")
    return Tokens(np.array(ids, np.int32), np.array(scored))


def _text(run: Sequence[tuple[Part, bool]], tokenizer, goes_on: bool) -> list[tuple[int, bool]]:
    """The ids of the joined texts. Scored are those after the ids that the unscored texts have alone.

    goes_on: as behind another word, whose ids are cut off again.
    """
    text = "".join(part.text for part, _ in run)
    given = "".join(part.text for part, is_scored in run if not is_scored)
    before, cut = "", 0
    if goes_on:
        text, given = text.lstrip(" "), given.lstrip(" ")
    if goes_on and not text[:1].isspace():
        before, cut = f"{_WORD} ", len(tokenizer.encode(_WORD))
    ids = tokenizer.encode(before + text)
    first = len(tokenizer.encode(before + given)) if given else cut
    return [(i, place >= first) for place, i in enumerate(ids)][cut:]


def _speech(
    run: Sequence[tuple[Part, bool]], vocabulary, units, deduplicated: bool, where: str
) -> list[tuple[int, bool]]:
    block, found = vocabulary.block("units"), []
    for part, is_scored in run:
        indices = np.asarray(units[part.audio] if part.audio else part.units, np.int32)
        if deduplicated:
            indices = deduplicate(indices, 1.0).ids
        if indices.size and not (0 <= indices.min() and indices.max() < block.size):
            raise ValueError(f"{where}: units from 0 to {block.size - 1} are known, not {indices.max()}")
        found += [(int(i), is_scored) for i in block.first + indices]
    return found
