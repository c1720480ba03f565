"""Options of likelihood suites as token ids: `<s>`, a marker where the modality changes, text and units.

Scored are text and units of the option; not `<s>`, not markers, not the context and not, unless asked for, `</s>`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.scoring import Tokens
from jaxslm.vocabulary import Vocabulary

Audio = tuple[Path, ...]


def protocol(vocabulary: Vocabulary, deduplicated: bool, score_end: bool) -> str:
    """What every table says about how its figures were made."""
    start = "<s>" + "".join(vocabulary.token(i) for i in vocabulary.speech_start)
    return (
        "sum and mean of the log-likelihoods of an option's text and units, over the whole vocabulary; <s>, markers "
        f"and context are not scored, </s> is {'scored, too' if score_end else 'not scored'}; speech begins with "
        f"{start}; units are {'' if deduplicated else 'not '}deduplicated; a tie counts one half"
    )


def word_choice(
    choice: Choice,
    vocabulary: Vocabulary,
    tokenizer: Any,
    units: Mapping[Audio, np.ndarray],
    *,
    score_end: bool = False,
) -> list[Tokens]:
    """The ids of each option behind the context; `units` has those of every sound.

    Raises ValueError: a modality or unit that the vocabulary has not, or an option without a token to score.
    """
    return [_tokens(choice, option, vocabulary, tokenizer, units, score_end) for option in choice.options]


def sounds(choices: Sequence[Choice]) -> list[Audio]:
    """All sounds of the choices, each once, in their order."""
    parts = (part for c in choices for row in (c.context, *c.options) for part in row)
    return list(dict.fromkeys(part.audio for part in parts if part.audio))


def _tokens(choice, option: Sequence[Part], vocabulary, tokenizer, units, score_end: bool) -> Tokens:
    ids, scored = [vocabulary.bos_id], [False]
    parts = [(part, False) for part in choice.context] + [(part, True) for part in option]
    at = 0
    while at < len(parts):
        run = [parts[at]]
        while at + len(run) < len(parts) and parts[at + len(run)][0].is_speech == run[0][0].is_speech:
            run.append(parts[at + len(run)])
        at += len(run)
        if run[0][0].is_speech:
            start, words = vocabulary.speech_start, _speech(run, vocabulary, units, choice.id)
        else:
            if not vocabulary.has_text:
                raise ValueError(f"{choice.id}: it has text, and this model is one of speech alone")
            start, words = vocabulary.text_start, _text(run, tokenizer)
        ids += [*start, *(i for i, _ in words)]
        scored += [False] * len(start) + [is_scored for _, is_scored in words]
    if score_end:
        ids, scored = [*ids, vocabulary.eos_id], [*scored, True]
    if not any(scored):
        raise ValueError(f"{choice.id}: an option has no text and no units, so there is nothing to score")
    return Tokens(np.array(ids, np.int32), np.array(scored))


def _text(run: Sequence[tuple[Part, bool]], tokenizer) -> list[tuple[int, bool]]:
    """The ids of the joined texts. Scored are those after the ids that the unscored texts have alone."""
    given = "".join(part.text for part, is_scored in run if not is_scored)
    ids = tokenizer.encode("".join(part.text for part, _ in run))
    first = len(tokenizer.encode(given)) if given else 0
    return [(i, place >= first) for place, i in enumerate(ids)]


def _speech(run: Sequence[tuple[Part, bool]], vocabulary, units, where: str) -> list[tuple[int, bool]]:
    block, found = vocabulary.block("units"), []
    for part, is_scored in run:
        indices = np.asarray(units[part.audio] if part.audio else part.units, int)
        if indices.size and not (0 <= indices.min() and indices.max() < block.size):
            raise ValueError(f"{where}: units from 0 to {block.size - 1} are known, not {indices.max()}")
        found += [(int(i), is_scored) for i in block.first + indices]
    return found
