"""Configs from the command line: values take the type they replace, mistakes are named with their cure."""

import sys
from pathlib import Path

import pytest

from jaxslm.configure import ConfigError, from_arguments, load_config, read_config

SOURCE = """
from configs_beside import shared
from ml_collections import ConfigDict

def get_config(arg=""):
    if arg not in ("", "tiny"):
        raise ValueError(f"knows the size 'tiny', not {arg!r}")
    return ConfigDict(dict(
        steps=10 if arg else 1000, optimizer=dict(peak_lr=1e-3, schedule="cosine"), on=True, spans=(10, 30),
        mesh=dict(data=-1, rules=dict()), nothing=None, shared=shared.VALUE,
    ))
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs_beside").mkdir()
    (tmp_path / "configs_beside/shared.py").write_text("VALUE = 'from the neighbour'")
    (tmp_path / "configs/recipe.py").write_text(SOURCE)
    return str(tmp_path / "configs/recipe.py")


def test_values_take_the_type_they_replace(file):
    changes = "--config.steps=2e3 --config.optimizer.peak_lr=1 --config.on=false --config.spans=5,15"
    rules = "--config.mesh.rules={'vocab': 'fsdp', 'embed': None}"
    config, others = from_arguments(
        [
            f"--config={file}:tiny",
            *changes.split(),
            rules,
            "--config.mesh.data",
            "4",
            "--config.nothing=7",
            "--workdir=w",
        ]
    )
    assert others == ["--workdir=w"]
    assert (config.steps, config.optimizer.peak_lr, config.on, config.spans) == (2000, 1.0, False, (5, 15))
    assert isinstance(config.optimizer.peak_lr, float)
    assert config.mesh.to_dict() == {"data": 4, "rules": {"vocab": "fsdp", "embed": None}}
    assert (config.nothing, config.shared) == (7, "from the neighbour")
    assert file.rsplit("/configs/", 1)[0] not in sys.path
    with pytest.raises(AttributeError):  # locked
        config.optimizer.peak_lrr = 1.0


def test_dicts_that_are_empty_or_none_by_default_can_be_filled(file):
    filled = "--config.mesh.rules.kv_heads=None --config.mesh.rules.embed=data --config.nothing={'factor':8.0}"
    config, _ = from_arguments([f"--config={file}", *filled.split()])
    assert config.mesh.rules.to_dict() == {"kv_heads": None, "embed": "data"}
    assert dict(config.nothing) == {"factor": 8.0}


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--config.optimizer.peak_lrr=1", "no such key. Did you mean optimizer.peak_lr?"),
        ("--config.peak_lr=1", "no such key. Did you mean optimizer.peak_lr?"),
        ("--config.mesh.more=1", "--config.mesh.more: there is no such key"),
        ("--config.steps.more=1", "--config.steps.more: there is no such key"),
        ("--config.steps=abc", "steps=abc: expected a value of type int, got str (it is 10)"),
        ("--config.steps=1.5", "expected a value of type int, got float"),
        ("--config.optimizer.peak_lr=high", "expected a value of type float, got str"),
        ("--config.on=2", "expected a value of type bool, got int"),
        ("--config.optimizer=3", "expected a value of type dict, got int"),
        ("--config.steps", "needs a value"),
    ],
)
def test_mistakes_are_named(file, argument, message):
    with pytest.raises(ConfigError) as error:
        from_arguments([f"--config={file}:tiny", argument])
    assert message in str(error.value)


def test_unknown_file_and_size_are_named(file):
    with pytest.raises(ConfigError, match="no file .*recipes.py. Did you mean .*recipe.py"):
        load_config(file.replace("recipe", "recipes"))
    with pytest.raises(ConfigError, match="recipe.py:huge: knows the size 'tiny', not 'huge'"):
        load_config(file + ":huge")


def test_config_of_a_run_reads_back(file, tmp_path):
    config = load_config(file)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    assert read_config(tmp_path).optimizer.to_dict() == config.optimizer.to_dict()
    with pytest.raises(ConfigError, match="not the workdir of a run"):
        read_config(tmp_path / "elsewhere")


def test_new_names_where_a_user_chooses_them():
    """A source or a suite beside others, whose own keys are still checked."""
    recipe = str(Path(__file__).parents[1] / "configs" / "evidence.py")
    source, suite = "{'kind': 'text', 'path': 'x'}", "{'kind': 'jsonl', 'path': 'q'}"
    config = load_config(recipe, [("data.sources.mine", source), ("eval.suites.mine", suite)])
    assert set(config.data.sources) == {"stories", "prompts", "texts", "mine"}
    assert set(config.eval.suites) == {"cloze", "mine"} and config.eval.suites.mine.path == "q"
    with pytest.raises(ConfigError, match="there is no such key"):
        load_config(recipe, [("data.sources.promts.path", "x")])
