"""Pickles read as data, by an interpreter in which no opcode can call anything or take more than its share of memory.

A pickle is a program that may call whatever it names. Here a name is an inert `Name`; calls and states go to the reader
of a file format (`known`, `make`, `build`), which puts together the few things that its files need. Opcodes are
counted, sizes are those of the file, and keys are of kinds whose hashes cost nothing.

https://docs.python.org/3/library/pickle.html, "Restricting Globals"; Lib/pickle.py and pickletools.py of CPython.
"""

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Of a file: those of published models have 20,000. At most a few hundred bytes are made by one.
MAX_OPCODES = 2_000_000


class Refused(ValueError):
    """A file that asks for more than its reader gives; the message goes on from "it"."""


@contextlib.contextmanager
def reading(path: str | Path, kind: str, cure: str) -> Iterator[None]:
    """Whatever a damaged or hostile file raises within becomes a ValueError that names it and the cure."""
    try:
        yield
    except Refused as error:
        raise ValueError(f"{path} was not read and nothing in it was run: {error}") from None
    except Exception as error:  # damage shows in as many ways as there are opcodes
        # Only text is shown: other arguments may be as large as their makers like.
        said = [f": {argument[:200]}" for argument in error.args[:1] if isinstance(argument, str)]
        what = type(error).__name__ + "".join(said)
        raise ValueError(f"{path} is truncated, damaged or no {kind} ({what}); {cure}") from None


class Name:
    """What a pickle names; stands for nothing."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:200]


class _Opcodes(dict):
    """The table of opcodes, which serves so many of them."""

    left = MAX_OPCODES

    def __getitem__(self, opcode: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Refused(f"it has more than {MAX_OPCODES:,} opcodes, which no model needs")
        return super().__getitem__(opcode)


class RestrictedUnpickler(pickle._Unpickler):
    """`load()` gives plain values, `Name`s, and what `make` and `build` of a subclass put together."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.dispatch = _Opcodes(type(self).dispatch)

    def known(self, name: Name) -> bool:
        """Whether files of the format name this."""
        return False

    def make(self, name: Name, arguments: tuple) -> Any:
        """The value that calling `name` stands for. Raises Refused for what the format does not call."""
        raise Refused(f"it calls {name}")

    def build(self, value: Any, state: Any) -> Any:
        """What takes the place of `value`, given its state. Raises Refused where there can be none."""
        raise Refused(f"it gives a state to {type(value).__name__}")

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("it refers to objects outside of it")

    def find_class(self, module: str, name: str) -> Name:
        found = Name(module, name)
        if not self.known(found):
            raise Refused(f"it names {found}, which is none of the data that such a file holds and might run code")
        return found

    def get_extension(self, code: int) -> None:
        raise Refused(f"it asks for the registered extension {code}")

    def _load_call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise Refused(f"it calls a {type(name).__name__}")
        self.append(self.make(name, arguments))

    def _load_state(self) -> None:
        state = self.stack.pop()
        self.stack[-1] = self.build(self.stack[-1], state)

    def _load_refused(self) -> None:
        raise Refused("it uses an opcode that arrays and settings do not need")

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _load_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _load_items(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list) -> None:
        mapping = self.stack[-1]
        if not isinstance(mapping, dict):
            raise Refused(f"it gives items to {type(mapping).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nested tuples take for ever to hash, and large numbers can be chosen to collide.
            if type(key) not in self.keys or (type(key) is int and abs(key) >> 31):
                raise Refused(f"it has a key of type {type(key).__name__}, or a number from 2**31")
            mapping[key] = value

    keys: tuple[type, ...] = (str, bytes, int, bool, type(None), Name)

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _load_call
    dispatch[pickle.BYTEARRAY8[0]] = dispatch[pickle.BINBYTES8[0]]  # its own takes the memory before it reads
    dispatch[pickle.BUILD[0]] = _load_state
    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.SETITEM[0]] = _load_item
    dispatch[pickle.SETITEMS[0]] = _load_items
    for _opcodes in (
        (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
        (pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
    ):
        for _opcode in _opcodes:
            dispatch[_opcode[0]] = _load_refused
