"""What commands that take a config have in common: how they read their arguments and how they end on an error."""

import argparse
import logging
import sys
import tempfile
import traceback
from typing import Any

from ml_collections import ConfigDict

from jaxslm import configure


def make_parser(doc: str, *, config: bool = True) -> argparse.ArgumentParser:
    """A parser whose help is `doc`, if `config` with `--config`; logging goes to stderr as plain lines."""
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("jaxslm").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if config:
        parser.add_argument("--config", metavar="FILE.py[:ARG]", help="such as configs/spiritlm_7b.py:tiny")
    return parser


def parse(parser: argparse.ArgumentParser) -> tuple[ConfigDict, argparse.Namespace]:
    """The config with its overrides and the other arguments; a mistake ends the program in one line."""
    try:
        config, others = configure.from_arguments(sys.argv[1:])
    except configure.ConfigError as error:
        sys.exit(f"error: {error}")
    flags = parser.parse_args(others)
    if config is None:
        parser.error("--config=FILE.py[:ARG] is required")
    return config, flags


def add_unmasking(parser: argparse.ArgumentParser) -> None:
    """How a masked stage draws its codes, see `unmasking_of`."""
    parser.add_argument("--passes", help="of the masked stage, one number for each level, such as 12,1,1,1")
    parser.add_argument("--guidance", type=float, help="of the masked stage towards the voice; default: 0, none")
    parser.add_argument("--code_temperature", type=float, help="of the masked stage; default: 1")


def unmasking_of(flags: argparse.Namespace) -> dict[str, Any]:
    """Fields of `acoustic.unmasking.Unmasking` that were given. Raises ValueError for passes that are no numbers."""
    try:
        passes = tuple(int(n) for n in flags.passes.split(",")) if flags.passes else None
    except ValueError:
        raise ValueError(f"--passes={flags.passes}: give whole numbers, one for each level, such as 12,1,1,1") from None
    given = dict(passes=passes, guidance=flags.guidance, temperature=flags.code_temperature)
    return {name: value for name, value in given.items() if value is not None}


def last_words(error: BaseException) -> str:
    """Two lines for stderr: where the details lie, and `error: ` with the first line of the message.

    The traceback goes into a file; it takes the place of the first line if there is no room for one.
    """
    message = str(error) or type(error).__name__
    return f"{_details(''.join(traceback.format_exception(error)))}\nerror: {message.splitlines()[0]}"


def _details(text: str) -> str:
    try:
        handle, name = tempfile.mkstemp(prefix="jaxslm-error-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return text.rstrip()
    return f"details: {name}"
