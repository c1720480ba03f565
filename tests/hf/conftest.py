"""A short run of the project's own command, for the tests that export what it trained."""

from pathlib import Path

import pytest

from tests.end_to_end import commands

SHORT = {"steps": 4, "checkpoint.every": 2, "eval.every": 2, "log_every": 1}
SHORT |= {"data.sources.speech.utterances": 60, "data.sources.text.utterances": 60}


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """`train(workdir, key=value..., check=, recipe=)`: a run of a few small steps; the process that ended."""
    cache = tmp_path_factory.mktemp("cache")

    def run(workdir: Path, *, recipe: str = "spiritlm_7b", check: bool = True, **overrides):
        settings = SHORT | overrides
        if recipe != "spiritlm_7b":  # the others are without text
            settings = {name: value for name, value in settings.items() if ".text." not in name}
        given = (f"--config.{name}={value}" for name, value in settings.items())
        return commands.train(workdir, cache, *given, recipe=recipe, check=check)

    return run
