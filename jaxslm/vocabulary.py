"""One id space for text, markers, speech units and codes of a codec.

A vocabulary is a row of named blocks. The text base comes first, so that a warm start from a text LM keeps its ids;
what is new follows in the order the blocks are given, and the total is padded to a multiple that every mesh can shard.
Padding ids belong to no block: no mask ever allows them and no export writes them.

The SpiRit-LM ids are the reference point (Nguyen et al. 2024; released vocabulary): Llama-2's 32,000 pieces, `[Text]` =
32000, `[Speech]` = 32001, `[Hu0]`..`[Hu500]` = 32002..32502. A model of speech alone (GSLM, TWIST, Slam) has padding,
begin, end and the units, and no markers: there is nothing to tell apart.

Acoustic stages (AudioLM, Borsos et al. 2022) add the codes of a codec, `[Ac0]`.., an id for each code of each level,
and markers for what they are told and what they make.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

PAD_MULTIPLE = 128
MARKERS = ("[Text]", "[Speech]")
TASK_MARKERS = ("[ASR]", "[TTS]")
ACOUSTIC_MARKERS = ("[Frames]", "[Coarse]", "[Fine]")  # units, one a frame; first codes of each frame; the others
UNIT_PATTERN = "[Hu{}]"
CODE_PATTERN = "[Ac{}]"


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
      codec_sha256, code_levels: whose codes there are, and how many a frame has; "" and 0 without codes.
    """

    blocks: tuple[Block, ...]
    bos_id: int
    eos_id: int
    text_special_ids: tuple[int, ...]
    tokenizer_sha256: str
    unit_inventory_sha256: str
    pad_multiple: int = PAD_MULTIPLE
    codec_sha256: str = ""
    code_levels: int = 0

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

    @property
    def text_start(self) -> tuple[int, ...]:
        """What begins a span of text: the id of `[Text]`, or nothing in a vocabulary without markers."""
        return (self.id("[Text]"),) if self.marker_ids else ()

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

    @property
    def codebook_size(self) -> int:
        """K, codes of a level."""
        return self.block("codes").size // self.code_levels

    def code_ids(self, codes_TxQ: np.ndarray, first_level: int = 0) -> np.ndarray:
        """Codes of levels from `first_level` on as ids, frame after frame: int [T * Q]."""
        levels_Q = first_level + np.arange(codes_TxQ.shape[1])
        assert levels_Q[-1] < self.code_levels and codes_TxQ.max(initial=0) < self.codebook_size
        return (self.block("codes").first + levels_Q * self.codebook_size + codes_TxQ).reshape(-1)

    def codes_of(self, ids: np.ndarray, n_levels: int, first_level: int = 0) -> np.ndarray:
        """The inverse of `code_ids`: int32 [T, n_levels]."""
        levels_Q = first_level + np.arange(n_levels)
        codes_TxQ = np.reshape(ids, (-1, n_levels)) - self.block("codes").first - levels_Q * self.codebook_size
        assert codes_TxQ.min(initial=0) >= 0 and codes_TxQ.max(initial=0) < self.codebook_size
        return codes_TxQ.astype(np.int32)

    def code_masks(self, first_level: int, n_levels: int) -> np.ndarray:
        """Which ids may be sampled in turn where the codes of these levels are made: bool [n_levels, padded_size]."""
        block, levels = self.block("codes"), first_level + np.arange(n_levels)[:, None]
        return (np.arange(self.padded_size) - block.first) // self.codebook_size == levels

    def describe(self) -> str:
        """The blocks in one line, for people."""
        return ", ".join(f"{b.name} {b.first}..{b.stop - 1}" for b in self.blocks) + f", padded to {self.padded_size}"

    def to_json(self) -> dict:
        fields = dataclasses.asdict(self)
        if not self.codec_sha256:  # as it was before there were codes
            del fields["codec_sha256"], fields["code_levels"]
        return fields | {"size": self.size, "padded_size": self.padded_size}

    @classmethod
    def from_json(cls, fields: Mapping) -> "Vocabulary":
        blocks = tuple(Block(**{**block, "tokens": tuple(block["tokens"])}) for block in fields["blocks"])
        names = {f.name for f in dataclasses.fields(cls)} - {"blocks", "text_special_ids"}
        rest = {name: fields[name] for name in names if name in fields or not name.startswith("code")}
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
        if self.codec_sha256 != other.codec_sha256:
            theirs, ours = (f"sha256 {v.codec_sha256[:12]}.." if v.codec_sha256 else "none" for v in (other, self))
            raise ValueError(
                f"{where} was made with another codec: {theirs} there, {ours} here; its codes mean other sounds; set "
                "data.codec to the codec of the run, or start in a new place"
            )
        raise ValueError(f"{where} has another vocabulary: {other.describe()} there, {self.describe()} here; {cure}")


def check_free(tokenizer, *, codes: bool = False) -> None:
    """Raises ValueError if a text tokenizer has tokens already that a vocabulary, with `codes` or not, adds to it."""
    patterns = (UNIT_PATTERN, CODE_PATTERN) if codes else (UNIT_PATTERN,)
    numbered = re.compile("|".join(re.escape(pattern).replace(r"\{\}", r"\d+") for pattern in patterns))
    markers = (*MARKERS, *TASK_MARKERS, *(ACOUSTIC_MARKERS if codes else ()))
    for token in tokenizer.tokens:
        if token in markers or numbered.fullmatch(token):
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
    codec: Mapping | None = None,
) -> Vocabulary:
    """Text base of `tokenizer` (see tokenizer.py), then markers, units and task markers, in SpiRit-LM's order, then the
    codes of `codec` (what `describe_codec` says of it) and their markers.

    A tokenizer without text gives a vocabulary without markers of text and speech; no units, one of text alone. Raises
    ValueError for a codec whose levels have codebooks of different sizes.
    """
    if not tokenizer.has_text:
        markers = tasks = ()
    named = [("markers", tuple(markers)), ("units", (n_units, UNIT_PATTERN)), ("tasks", tuple(tasks))]
    sizes = codec["codebook_sizes"] if codec else ()
    if codec:
        if len(set(sizes)) > 1:
            raise ValueError(
                f"the codec {codec['name']} has codebooks of several sizes, {sizes}: use one of equal sizes"
            )
        named += [("codes", (sum(sizes), CODE_PATTERN)), ("acoustic", ACOUSTIC_MARKERS)]
    blocks = [Block("text", 0, tokenizer.size)]
    for name, content in named:
        if name in ("units", "codes"):
            size, pattern = content
            if size:
                blocks.append(Block(name, blocks[-1].stop, size, pattern=pattern))
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
        codec_sha256=codec["sha256"] if codec else "",
        code_levels=len(sizes),
    )
