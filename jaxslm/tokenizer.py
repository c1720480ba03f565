"""Text tokenizers behind one small interface: bytes, `tokenizer.json` (tokenizers) and SentencePiece models; or none.

Each has `size`, `tokens` (strings, in any order), `bos_id`, `eos_id`, `special_ids`, `sha256`, `encode(text)`,
`encode_words(words)` and `decode(ids)`; `has_text` is False for the one that stands for no text at all and has special
ids alone. Text never turns into control tokens: a transcript that contains "</s>" is encoded as those four characters.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

BEGIN = ("<s>", "<|begin_of_text|>", "<bos>", "<|im_start|>", "<|endoftext|>")
END = ("</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|endoftext|>")


class NoTokenizer:
    """`<pad>`, `<s>` and `</s>`, and no text: what a model of speech alone begins and ends with (GSLM, TWIST)."""

    has_text = False
    size = 3
    bos_id, eos_id = 1, 2
    special_ids = (0, 1, 2)
    tokens = ("<pad>", "<s>", "</s>")
    sha256 = hashlib.sha256(b"jaxslm no tokenizer: pad bos eos").hexdigest()

    def encode(self, text: str) -> list[int]:
        """Raises ValueError: there is nothing to encode text as."""
        raise ValueError(
            "data.tokenizer='none' is for speech alone: set data.tokenizer ('byte' needs no file) for text"
        )

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """As `encode`, word by word: raises ValueError if there are any."""
        return [self.encode(word) for word in words]

    def decode(self, ids: Iterable[int]) -> str:
        return ""


class ByteTokenizer:
    """UTF-8 bytes after `<pad>`, `<s>` and `</s>`: 259 ids, nothing to download."""

    has_text = True
    size = 259
    bos_id, eos_id = 1, 2
    special_ids = (0, 1, 2)
    tokens = ("<pad>", "<s>", "</s>")
    sha256 = hashlib.sha256(b"jaxslm byte tokenizer: pad bos eos, then bytes at +3").hexdigest()

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        return [self.encode(word if i == 0 else " " + word) for i, word in enumerate(words)]

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i - 3 for i in ids if 3 <= i < 259).decode(errors="replace")


class FastTokenizer:
    """A Hugging Face `tokenizer.json`; begin and end come from the `tokenizer_config.json` beside it, else by name.

    unknown: the token that stands for what it does not know, "" if it has none.
    """

    has_text = True

    def __init__(self, path: Path):
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        vocab = self._tokenizer.get_vocab(with_added_tokens=True)
        self.tokens, self.size = tuple(vocab), max(vocab.values()) + 1
        settings = path.with_name("tokenizer_config.json")
        named = json.loads(settings.read_text()) if settings.exists() else {}
        self.bos_id = self._find(named.get("bos_token"), BEGIN, path)
        self.eos_id = self._find(named.get("eos_token"), END, path)
        self.unknown = getattr(self._tokenizer.model, "unk_token", None) or ""
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = tuple(sorted({i for i, t in added.items() if t.special} | {self.bos_id, self.eos_id}))

    def _find(self, named, usual: tuple[str, ...], path: Path) -> int:
        content = named["content"] if isinstance(named, dict) else named
        for token in (content,) if content else usual:
            if (token_id := self._tokenizer.token_to_id(token)) is not None:
                return token_id
        raise ValueError(
            f"{path}: found none of {(content,) if content else usual} in it; name the begin and end tokens "
            "(bos_token, eos_token) in a tokenizer_config.json beside it"
        )

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        encoding = self._tokenizer.encode(" ".join(words), add_special_tokens=False)
        return _split_by_word(words, encoding.ids, encoding.offsets)

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode([i for i in ids if i < self.size], skip_special_tokens=True)


class SentencePieceTokenizer:
    """A SentencePiece `.model` file, such as Llama-2's."""

    has_text = True

    def __init__(self, path: Path):
        import sentencepiece

        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.size = self._processor.vocab_size()
        self.tokens = tuple(self._processor.id_to_piece(i) for i in range(self.size))
        self.bos_id, self.eos_id = self._processor.bos_id(), self._processor.eos_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise ValueError(f"{path}: the model has no begin or end piece; train it with bos_id and eos_id set")
        self.special_ids = tuple(
            i for i in range(self.size) if self._processor.is_control(i) or self._processor.is_unknown(i)
        )

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        pieces = self._processor.encode(" ".join(words), return_type="proto").pieces
        in_bytes = [word.encode() for word in words]  # the library's offsets count bytes
        return _split_by_word(in_bytes, [p.id for p in pieces], [(p.begin, p.end) for p in pieces])

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([int(i) for i in ids if 0 <= i < self.size])


def load_tokenizer(name: str):
    """Loads "byte", "none" (no text), a `tokenizer.json`, a SentencePiece model file, or a folder with one of these.

    Raises:
      ValueError: nothing there, or a file of another kind.
    """
    if name == "byte":
        return ByteTokenizer()
    if name == "none":
        return NoTokenizer()
    path = Path(name)
    if path.is_dir():
        found = [path / f for f in ("tokenizer.json", "tokenizer.model") if (path / f).exists()]
        if not found:
            raise ValueError(
                f"{path} holds neither tokenizer.json nor tokenizer.model: copy the tokenizer's files there"
            )
        path = found[0]
    if not path.exists():
        raise ValueError(
            f"data.tokenizer: {name!r} does not exist; give 'byte', 'none' (speech alone), a tokenizer.json or a "
            "SentencePiece model"
        )
    try:
        return FastTokenizer(path) if path.suffix == ".json" else SentencePieceTokenizer(path)
    except ValueError:
        raise
    except Exception as error:  # the libraries raise bare Exception and RuntimeError for a file they cannot read
        raise ValueError(f"data.tokenizer: {path} is no tokenizer.json and no SentencePiece model: {error}") from error


def _split_by_word(words: Sequence, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Deals the ids of " ".join(words) out to the words (str or bytes): each goes where its last character lies.

    A space belongs to the word behind it, so that joining any run of words gives back the text's own ids in order.
    """
    stops, position = [], 0
    for word in words:
        position += len(word)
        stops.append(position)
        position += 1
    split: list[list[int]] = [[] for _ in words]
    word = 0
    for token_id, (begin, end) in zip(ids, offsets, strict=True):
        last = max(begin, end - 1)
        while word + 1 < len(words) and last >= stops[word]:
            word += 1
        split[word].append(token_id)
    return split
