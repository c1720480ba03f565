"""One id space for text, markers and speech units.

A vocabulary is a row of named blocks. The text base comes first, so that a warm start from a text LM keeps its ids;
what is new follows in the order the blocks are given, and the total is padded to a multiple that every mesh can shard.
Padding ids belong to no block: no mask ever allows them and no export writes them.

The SpiRit-LM ids are the reference point (Nguyen et al. 2024; released vocabulary): Llama-2's 32,000 pieces, `[Text]` =
32000, `[Speech]` = 32001, `[Hu0]`..`[Hu500]` = 32002..32502. A model of speech alone (GSLM, TWIST, Slam) has padding,
begin, end and the units, and no markers: there is nothing to tell apart.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

PAD_MULTIPLE = 128
MARKERS = ("[Text]", "[Speech]")
TASK_MARKERS = ("[ASR]", "[TTS]")
UNIT_PATTERN = "[Hu{}]"


@dataclasses.dataclass(frozen=True)
class Block:
    """`size` consecutive ids from `first` on. `tokens` names each of them, or `pattern` does with the index put in for
    `{}`.
    """

    name: str
    first: int
    size: int
    tokens: tuple[str, ...] = ()
    pattern: str = ""

    @property
    def stop(self) -> int:
        return self.first + self.size

    def token(self, index: int) -> str:
        return self.tokens[index] if self.tokens else self.pattern.format(index)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Ordered blocks over a text base, with the digests of what the ids mean.

    Attributes:
      blocks: contiguous from id 0; the first is named "text".
      bos_id, eos_id: ids inside the text block.
      text_special_ids: ids of the text block that are no text (begin, end, unknown, padding): never sampled as text.
      tokenizer_sha256, unit_inventory_sha256: what the text and the unit ids stand for.
      pad_multiple: `padded_size` is the next multiple of it.
    """

    blocks: tuple[Block, ...]
    bos_id: int
    eos_id: int
    text_special_ids: tuple[int, ...]
    tokenizer_sha256: str
    unit_inventory_sha256: str
    pad_multiple: int = PAD_MULTIPLE

    def __post_init__(self):
        first = 0
        for block in self.blocks:
            assert block.first == first and block.size > 0, f"block {block.name} leaves a gap or is empty"
            first = block.stop

    @property
    def size(self) -> int:
        """Number of ids that mean something."""
        return self.blocks[-1].stop

    @property
    def padded_size(self) -> int:
        """Rows of the embedding: `size` rounded up to `pad_multiple`."""
        return -(-self.size // self.pad_multiple) * self.pad_multiple

    def block(self, name: str) -> Block:
        for block in self.blocks:
            if block.name == name:
                return block
        raise ValueError(f"the vocabulary has no block {name!r}; it has {[b.name for b in self.blocks]}")

    @property
    def text_size(self) -> int:
        return self.block("text").size

    @property
    def has_text(self) -> bool:
        """False where the text block holds special ids alone: a model of speech alone."""
        return self.text_size > len(self.text_special_ids)

    @functools.cached_property
    def _named(self) -> dict[str, int]:
        added = (block for block in self.blocks if block.name != "text")
        return {block.token(i): block.first + i for block in added for i in range(block.size)}

    def id(self, token: str) -> int:
        """The id of an added token such as "[Speech]" or "[Hu7]"."""
        if token not in self._named:
            raise ValueError(f"{token!r} is not an added token of this vocabulary ({self.describe()})")
        return self._named[token]

    def token(self, token_id: int) -> str:
        """The string of an added id; ids of the text block belong to the tokenizer (`<text:ID>` is returned for
        them).
        """
        for block in self.blocks:
            if block.first <= token_id < block.stop:
                return f"<text:{token_id}>" if block.name == "text" else block.token(token_id - block.first)
        raise ValueError(f"id {token_id} is outside the vocabulary's {self.size} ids")

    @functools.cached_property
    def marker_ids(self) -> tuple[int, ...]:
        """Ids of every marker, of both marker blocks."""
        return tuple(i for b in self.blocks if b.name in ("markers", "tasks") for i in range(b.first, b.stop))

    @property
    def speech_start(self) -> tuple[int, ...]:
        """What begins a span of speech: the id of `[Speech]`, or nothing in a vocabulary without markers."""
        return (self.id("[Speech]"),) if self.marker_ids else ()

    def modality_mask(self, modality: str, stop: bool = True) -> np.ndarray:
        """Which ids may be sampled: bool [padded_size].

        Args:
          modality: "text" (the text block without its special ids: nothing if `has_text` is False) or "speech" (the
            units).
          stop: also allow what ends a span: the end of sequence and every marker.
        """
        mask = np.zeros(self.padded_size, bool)
        if modality == "text":
            mask[: self.text_size] = True
            mask[list(self.text_special_ids)] = False
        elif modality == "speech":
            units = self.block("units")
            mask[units.first : units.stop] = True
        else:
            raise ValueError(f"modality is 'text' or 'speech', not {modality!r}")
        if stop:
            mask[[self.eos_id, *self.marker_ids]] = True
        return mask

    def describe(self) -> str:
        """The blocks in one line, for people."""
        return ", ".join(f"{b.name} {b.first}..{b.stop - 1}" for b in self.blocks) + f", padded to {self.padded_size}"

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {"size": self.size, "padded_size": self.padded_size}

    @classmethod
    def from_json(cls, fields: Mapping) -> "Vocabulary":
        blocks = tuple(Block(**{**block, "tokens": tuple(block["tokens"])}) for block in fields["blocks"])
        rest = {f.name: fields[f.name] for f in dataclasses.fields(cls) if f.name not in ("blocks", "text_special_ids")}
        return cls(blocks=blocks, text_special_ids=tuple(fields["text_special_ids"]), **rest)

    def check_same(self, other: "Vocabulary", where: str) -> None:
        """Raises ValueError, saying what differs, unless `other` (found in `where`) gives every id the same meaning."""
        if self == other:
            return
        cure = f"use the data, tokenizer and units of {where}, or start in a new place"
        if self.unit_inventory_sha256 != other.unit_inventory_sha256:
            raise ValueError(
                f"{where} was made with another unit inventory: sha256 {other.unit_inventory_sha256[:12]}.. there, "
                f"{self.unit_inventory_sha256[:12]}.. here; its unit ids mean other sounds; {cure}"
            )
        if self.tokenizer_sha256 != other.tokenizer_sha256:
            raise ValueError(
                f"{where} was made with another text tokenizer: sha256 {other.tokenizer_sha256[:12]}.. there, "
                f"{self.tokenizer_sha256[:12]}.. here; {cure}"
            )
        raise ValueError(f"{where} has another vocabulary: {other.describe()} there, {self.describe()} here; {cure}")


def check_free(tokenizer) -> None:
    """Raises ValueError if a text tokenizer has tokens already that a vocabulary adds to it."""
    unit = re.compile(re.escape(UNIT_PATTERN).replace(r"\{\}", r"\d+"))
    for token in tokenizer.tokens:
        if token in (*MARKERS, *TASK_MARKERS) or unit.fullmatch(token):
            raise ValueError(
                f"data.tokenizer has a token {token!r} of its own, which would be added for speech: give the tokenizer "
                "and the model as they were before speech was added, or go on from the workdir that made them by "
                "init_from=WORKDIR"
            )


def build_vocabulary(
    tokenizer,
    n_units: int,
    unit_inventory_sha256: str,
    *,
    markers: Sequence[str] = MARKERS,
    tasks: Sequence[str] = TASK_MARKERS,
    pad_multiple: int = PAD_MULTIPLE,
) -> Vocabulary:
    """Text base of `tokenizer` (see tokenizer.py), then markers, units and task markers, in SpiRit-LM's order.

    A tokenizer without text gives a vocabulary without markers.
    """
    if not tokenizer.has_text:
        markers = tasks = ()
    named = [("markers", tuple(markers)), ("units", n_units), ("tasks", tuple(tasks))]
    blocks = [Block("text", 0, tokenizer.size)]
    for name, content in named:
        if name == "units":
            blocks.append(Block(name, blocks[-1].stop, content, pattern=UNIT_PATTERN))
        elif content:
            blocks.append(Block(name, blocks[-1].stop, len(content), tokens=content))
    return Vocabulary(
        blocks=tuple(blocks),
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        text_special_ids=tuple(tokenizer.special_ids),
        tokenizer_sha256=tokenizer.sha256,
        unit_inventory_sha256=unit_inventory_sha256,
        pad_multiple=pad_multiple,
    )
