"""The labels of a Hugging Face CTC model, from the files of its tokenizer (`Wav2Vec2CTCTokenizer`)."""

import json
from pathlib import Path

DELIMITER = "|"


def read_labels(folder: str | Path, language: str = "") -> tuple[list[str], int]:
    """(labels by id, id of the blank) from vocab.json, config.json and, where it is there, tokenizer_config.json.

    Ids without a token are "". The label between words is always "|", whatever the tokenizer calls it. The blank is
    `pad_token_id`, which is what the models are trained with.

    Args:
      language: one of an MMS vocab.json, which holds a vocabulary for each ("eng"); "" for a model of one.
    Raises:
      ValueError: a missing or malformed file, or a language that is not in it.
    """
    folder = Path(folder)
    path = folder / "vocab.json"
    vocabulary = _read(path)
    if vocabulary and all(isinstance(value, dict) for value in vocabulary.values()):
        if language not in vocabulary:
            few = ", ".join(sorted(vocabulary)[:8])
            raise ValueError(f"{path} has the languages {few} ... and not {language!r}; name one of them")
        vocabulary = vocabulary[language]
    ids = list(vocabulary.values())
    if not ids or not all(type(i) is int and 0 <= i < 2**20 for i in ids) or len(set(ids)) < len(ids):
        raise ValueError(f"{path} is no vocabulary of tokens with an id each; restore the model's own file")
    labels = [""] * (max(ids) + 1)
    for token, i in vocabulary.items():
        labels[i] = token
    beside = folder / "tokenizer_config.json"
    between = (_read(beside) if beside.is_file() else {}).get("word_delimiter_token") or DELIMITER
    between = between.get("content") if isinstance(between, dict) else between  # as an added token
    if between in vocabulary and between != DELIMITER:
        labels[vocabulary[between]] = DELIMITER
    blank = _read(folder / "config.json").get("pad_token_id")
    if type(blank) is not int or not 0 <= blank < len(labels):
        raise ValueError(
            f"{folder / 'config.json'}: pad_token_id, the blank, is {blank!r} of {len(labels)} labels; restore it"
        )
    return labels, blank


def _read(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there; give the whole folder of the model") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); restore the model's own file") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds a {type(record).__name__}; restore the model's own file")
    return record
