"""The tokenizer of an exported model folder: what `AutoTokenizer.from_pretrained(folder)` needs to give our ids.

The folder gets a `tokenizer.json` with the text tokenizer and, after its ids, every other token of the vocabulary
("[Speech]", "[Hu7]") as an added token, and a `tokenizer_config.json`. `AutoTokenizer.encode("[Text]" + text,
add_special_tokens=False)` is `[vocabulary.id("[Text]"), *tokenizer.encode(text)]`, with these known differences:

* "</s>" or "[Hu7]" inside a text is that token to transformers, but characters to the trainer, which never makes
  control tokens of text.
* A span of text behind a span of speech begins as a text of its own; in the trainer it is cut out of the utterance. So
  byte-level tokenizers want the space written ("[Speech][Hu7][Text] world"), Llama-2's and its like do not.

Where config.json says model_type qwen2, transformers 5 takes the vocabulary and merges of the file and puts its own
Qwen2Tokenizer around them, whatever tokenizer_config.json says (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS in
tokenization_auto.py; of the other families here none is on that list). `read_as_qwen2` says whether that is the same.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from jaxslm.hf.sentencepiece_bpe import added_token, begin_in_front, convert_sentencepiece
from jaxslm.tokenizer import ByteTokenizer, FastTokenizer, NoTokenizer, SentencePieceTokenizer
from jaxslm.vocabulary import Vocabulary

SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2}  # of the byte tokenizer and of the one without text
CHAT_TEMPLATE = "chat_template.jinja"
KEPT = ("model_max_length", "padding_side", "chat_template")  # of the source's tokenizer_config.json
# What transformers' Qwen2Tokenizer is made of (models/qwen2/tokenization_qwen2.py), whatever the file says.
QWEN2_UNKNOWN = "<|endoftext|>"
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Texts on which the written file and the trainer's tokenizer are compared before anything is written.
PROBES = (
    "",
    "hello",
    "Tom opens the door, doesn't he? Yes: 42 times!",
    " one space before, two  within,   three behind   ",
    "lines\n\nand\ttabs\r\n",
    "naïve café Ünïcödé 東京は晴れ 한국어 हिन्दी مرحبا",
    "😀 👩‍👩‍👧",
    "1234567890 3.14 0000000 aaaaaaa ====",
    "\u200b\u00a0\u3000 ①",
)


def write_tokenizer(folder: Path, tokenizer, vocabulary: Vocabulary, *, source: Path | None) -> None:
    """Writes tokenizer.json and tokenizer_config.json, and chat_template.jinja if the source has one.

    The text tokenizer stays as it is but for two things: it does not cut or pad, and a text behind a marker is written
    as a text at the beginning is (prepend_scheme "first" becomes "always"), which is how the trainer sees it. Added
    tokens are not special: decode(ids, skip_special_tokens=True) still shows the units.

    Args:
      folder: where to write; it exists.
      tokenizer: one of tokenizer.py.
      vocabulary: the one built over it.
      source: the folder or file the tokenizer was loaded from, None for bytes and no text.

    Raises:
      ValueError: the source is missing or has changed, is of a kind that a tokenizer.json cannot do exactly (see
        sentencepiece_bpe.py), holds a token of the vocabulary already, or would be read otherwise than the trainer
        does; nothing is written then.
    """
    path = _source_file(tokenizer, source)
    settings = json.loads(path.with_name("tokenizer_config.json").read_text("utf-8")) if _has_settings(path) else {}
    content = _content(tokenizer, path)
    _add_tokens(content, tokenizer, vocabulary, path)
    written = tokenizers.Tokenizer.from_str(json.dumps(content))
    _check(written, tokenizer, vocabulary, path)
    template = path.with_name(CHAT_TEMPLATE) if path else None
    if template and template.exists():
        shutil.copyfile(template, folder / CHAT_TEMPLATE)
        settings["chat_template"] = template.read_text("utf-8")  # transformers 4.45 looks only here
    text = json.dumps(content, ensure_ascii=False, indent=2)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    text = json.dumps(_settings(content, written, tokenizer, settings), ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def read_as_qwen2(folder: Path) -> bool:
    """Whether transformers' Qwen2Tokenizer, put around the vocabulary and merges of this tokenizer.json, gives its ids.

    So it is with Qwen2's and Qwen2.5's own files; not with those of models distilled into Qwen from others.
    """
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    written = tokenizers.Tokenizer.from_str(json.dumps(content))
    model, plain = content["model"], ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    plain += ("fuse_unk", "byte_fallback", "ignore_merges")
    words = {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False}
    in_bytes = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    steps = (content.get("pre_tokenizer") or {}).get("pretokenizers", [])
    return (
        model["type"] == "BPE"
        and not any(model.get(name) for name in plain)
        and content.get("normalizer") == {"type": "NFC"}
        and [{k: v for k, v in step.items() if k != "trim_offsets"} for step in steps] == [words, in_bytes]
        and (content.get("decoder") or {}).get("type") == "ByteLevel"
        and written.token_to_id(QWEN2_UNKNOWN) is not None  # it would be added
    )


def _has_settings(path: Path | None) -> bool:
    return path is not None and path.with_name("tokenizer_config.json").exists()


def _source_file(tokenizer, source: Path | None) -> Path | None:
    """The file the tokenizer was read from, None if it needs none. Raises ValueError if it is not that file now."""
    if isinstance(tokenizer, (ByteTokenizer, NoTokenizer)):
        return None
    if source is None:
        raise ValueError("the run's tokenizer was read from a file; give that file or its folder as the source")
    path = Path(source)
    if path.is_dir():
        path /= "tokenizer.json" if isinstance(tokenizer, FastTokenizer) else "tokenizer.model"
    if not path.exists():
        raise ValueError(f"{path}: the tokenizer of this run is not there; put it back and export again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != tokenizer.sha256:
        raise ValueError(f"{path} is not the tokenizer that was loaded; put that one back and export again")
    return path


def _content(tokenizer, path: Path | None) -> dict[str, Any]:
    """tokenizer.json of the text alone."""
    if isinstance(tokenizer, FastTokenizer):
        content = json.loads(path.read_text("utf-8"))
        _begin_every_text_alike(content.get("pre_tokenizer"))
        return content | {"truncation": None, "padding": None}
    if isinstance(tokenizer, SentencePieceTokenizer):
        return convert_sentencepiece(path)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(i, token, special=True) for token, i in SPECIAL.items()],
        "normalizer": None,
        "post_processor": begin_in_front("<s>", tokenizer.bos_id),
    }
    if isinstance(tokenizer, NoTokenizer):  # any text is an error: the model has no unknown token
        return content | {
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": SPECIAL, "unk_token": "<unk>"},
        }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocab = SPECIAL | {character: byte + 3 for byte, character in enumerate(_byte_characters())}
    return content | {
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": vocab, "merges": []},
    }


def _byte_characters() -> list[str]:
    """How byte-level tokenizers write each byte (bytes_to_unicode in GPT-2's encoder.py): what prints is itself."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]


def _begin_every_text_alike(pre_tokenizer: dict[str, Any] | None) -> None:
    """A text behind an added token is no "first" text to Metaspace, but to the trainer every text is."""
    for step in (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}]):
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
            step["prepend_scheme"] = "always"


def _add_tokens(content: dict[str, Any], tokenizer, vocabulary: Vocabulary, path: Path | None) -> None:
    """Appends the vocabulary's tokens to `content`.

    `tokenizers` does not read the ids of added tokens: a token that the model's own vocabulary has gets the id there,
    any other the next one after the largest (0.20 to 0.23, added_vocabulary.rs: add_tokens). Where the text's ids have
    gaps, that is not our id. Then all tokens go into the model's vocabulary too, and placeholders fill the gaps.
    """
    base = tokenizers.Tokenizer.from_str(json.dumps(content)).get_vocab(with_added_tokens=True)
    new = {vocabulary.token(i): i for i in range(vocabulary.text_size, vocabulary.size)}
    if clash := sorted(new.keys() & base.keys()):
        raise ValueError(
            f"{path}: has {clash[0]!r} of its own (id {base[clash[0]]}), which the vocabulary adds as {new[clash[0]]}; "
            "train with a tokenizer without it"
        )
    shared = Counter(base.values())
    for token in content.setdefault("added_tokens", []):
        token["id"] = base[token["content"]]
        if shared[token["id"]] > 1:
            raise ValueError(
                f"{path}: {token['content']!r} and another token are both read as id {token['id']}, because the ids "
                "have gaps; train with a tokenizer.json without them"
            )
    content["added_tokens"] += [added_token(i, token, special=False) for token, i in new.items()]
    if sorted(base.values()) != list(range(vocabulary.text_size)):
        vocab = content["model"]["vocab"]
        if not isinstance(vocab, dict):
            raise ValueError(f"{path}: its ids have gaps; train with a tokenizer.json without them")
        gaps = sorted(set(range(vocabulary.text_size)) - set(base.values()))
        vocab |= {token["content"]: token["id"] for token in content["added_tokens"]}
        vocab |= {f"<unused {i}>": i for i in gaps}  # the space keeps text from being one


def _check(written: tokenizers.Tokenizer, tokenizer, vocabulary: Vocabulary, path: Path | None) -> None:
    """Raises ValueError unless every token has its id and the texts of PROBES have the trainer's."""
    name = path or "the tokenizer"
    added = [vocabulary.token(i) for i in range(vocabulary.text_size, vocabulary.size)]
    for token, encoding in zip(added, written.encode_batch(added, add_special_tokens=False), strict=True):
        if encoding.ids != [vocabulary.id(token)]:
            raise ValueError(
                f"{name}: written as a tokenizer.json, it reads {token!r} as {encoding.ids}, not as the trainer's id "
                f"{vocabulary.id(token)}; export a run with another data.tokenizer"
            )
    for text in PROBES if tokenizer.has_text else ():
        ours = tokenizer.encode(text)
        for before in ([], added[:1]):
            expected = [vocabulary.id(token) for token in before] + ours
            ids = written.encode("".join(before) + text, add_special_tokens=False).ids
            if ids != expected:
                raise ValueError(
                    f"{name}: written as a tokenizer.json, it reads {''.join(before) + text!r} as {ids}, the trainer "
                    f"as {expected}; export a run with another data.tokenizer"
                )


def _settings(
    content: Mapping[str, Any], written: tokenizers.Tokenizer, tokenizer, source: Mapping[str, Any]
) -> dict[str, Any]:
    """tokenizer_config.json. `source`: that of the tokenizer's source.

    PreTrainedTokenizerFast loads the tokenizer.json unchanged: in transformers 4 as the class itself, in 5 as
    TokenizersBackend. Whether the begin token comes first is up to the tokenizer.json there; add_bos_token says so.
    """
    bos, eos = written.id_to_token(tokenizer.bos_id), written.id_to_token(tokenizer.eos_id)
    known = {name: _known(source.get(name), written) for name in ("pad_token", "unk_token")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": known["pad_token"] or _known("<pad>", written) or eos,
        "add_bos_token": written.encode("").ids[:1] == [tokenizer.bos_id],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # Llama refuses token_type_ids
        "padding_side": "left",  # what is generated must follow on the prompt
    }
    if unk := known["unk_token"] or _known(content["model"].get("unk_token"), written):
        settings["unk_token"] = unk
    before = content.get("pre_tokenizer") or {}
    if "add_prefix_space" in before:  # transformers 4 sets it to False if it is not said here
        settings["add_prefix_space"] = before["add_prefix_space"]
    return settings | {name: source[name] for name in KEPT if name in source}


def _known(token: Any, written: tokenizers.Tokenizer) -> str | None:
    """The string of a token of a tokenizer_config.json, None if it has no id."""
    content = token["content"] if isinstance(token, dict) else token
    return content if content and written.token_to_id(content) is not None else None
