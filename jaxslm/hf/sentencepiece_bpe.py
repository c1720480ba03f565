"""A SentencePiece BPE model as the content of a Hugging Face `tokenizer.json`.

The shape is that of Llama-2's converted file (transformers, convert_slow_tokenizer.py: LlamaConverter): the normalizer
writes the spaces as `▁`, nothing cuts the text into words, and a piece of score s is a merge of rank s. What that
converter leaves out is kept here: the model's own character map, the collapsing of spaces, and that control, unknown
and byte pieces are never made of text.

Two differences remain, both rare: a model that normalizes (nmt_nfkc; not Llama's or Mistral's) loses a combining mark
behind a character that the map changes ("ﬁ" with an accent), because `tokenizers` looks up both as one; and characters
that a model without byte fallback does not know decode to its unknown piece, not to SentencePiece's " ⁇ ".
Unigram models are refused: of two ways to cut a text that are equally likely ("0000"), `tokenizers` takes the other.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPACE = "▁"
CURE = "as data.tokenizer of a run to export, give a tokenizer.json or a SentencePiece BPE model without this"


def convert_sentencepiece(path: Path) -> dict[str, Any]:
    """The `tokenizer.json` of a SentencePiece `.model` file: same ids for text, begin token in front, as a dict.

    Raises ValueError for what a `tokenizer.json` cannot do exactly: models other than BPE, pieces of the user's own
    (`user_defined_symbols`), unused pieces, spaces at the end of words.
    """
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    _check_convertible(model, path)
    pieces = list(model.pieces)
    of_text = {p.piece: i for i, p in enumerate(pieces) if p.type == p.NORMAL}
    special = [i for i, p in enumerate(pieces) if p.type in (p.CONTROL, p.UNKNOWN)]
    unk_id = next(i for i, p in enumerate(pieces) if p.type == p.UNKNOWN)
    body = {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[unk_id].piece,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": model.trainer_spec.byte_fallback,
        "ignore_merges": False,
        "vocab": {p.piece: i for i, p in enumerate(pieces)},
        "merges": _merges(of_text, [p.score for p in pieces]),
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(i, pieces[i].piece, special=True) for i in special],
        "normalizer": _normalizer(model.normalizer_spec),
        "pre_tokenizer": None,
        "post_processor": begin_in_front(pieces[model.trainer_spec.bos_id].piece, model.trainer_spec.bos_id),
        "decoder": _decoder(model),
        "model": body,
    }


def added_token(token_id: int, content: str, *, special: bool) -> dict[str, Any]:
    """An entry of "added_tokens" that is found in the text as it stands, alone or inside a word."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, **flags, "special": special}


def begin_in_front(token: str, token_id: int) -> dict[str, Any]:
    """The post-processor that puts the begin token before each text."""
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    pair = [{"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, *pair],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


def _check_convertible(model, path: Path) -> None:
    trainer, kinds = model.trainer_spec, {p.type for p in model.pieces}
    piece = model.SentencePiece
    reasons = {
        "it is no BPE model": trainer.model_type != trainer.BPE,
        "it has user-defined pieces": piece.USER_DEFINED in kinds,
        "it has unused pieces": piece.UNUSED in kinds,
        "it writes spaces at the end of words": trainer.treat_whitespace_as_suffix,
        "it does not write spaces as ▁": not model.normalizer_spec.escape_whitespaces,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"{path}: cannot be written exactly as a tokenizer.json, because {reason}; {CURE}")


def _merges(of_text: Mapping[str, int], scores: list[float]) -> list[list[str]]:
    """Every pair of pieces that makes a third, best score first: SentencePiece joins by the score of what results."""
    found = []
    for piece, piece_id in of_text.items():
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        for left, right in pairs:
            if left in of_text and right in of_text:
                found.append((-scores[piece_id], piece_id, of_text[left], of_text[right], left, right))
    return [[left, right] for *_, left, right in sorted(found)]


def _normalizer(spec) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:  # spaces only: what else is a space, the character map has made one
        steps.append({"type": "Replace", "pattern": {"Regex": rf"\A +|[ {SPACE}]+\z"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return {"type": "Sequence", "normalizers": steps}


def _decoder(model) -> dict[str, Any]:
    normalizer = model.normalizer_spec
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    if model.trainer_spec.byte_fallback:
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Fuse"})
    if normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
