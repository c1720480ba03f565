"""Checkpoints: exact, unharmed by what follows, and never trusted when something is wrong with them."""

import contextlib
import json
import re
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.training.checkpoint import CheckpointError, Checkpoints, damage, restore_model, saved_steps
from jaxslm.training.state import TrainState
from tests.training.tiny_task import Bigram


def state_of(seed, width=1000):
    model = {"bigram": Bigram(jax.random.key(seed)), "wide": jax.random.normal(jax.random.key(seed), (width,))}
    adam = {"mu": jax.tree.map(jnp.ones_like, model), "count": jnp.int32(seed)}
    step, skipped, in_a_row = (jnp.full((), n, jnp.int32) for n in (seed, 1, 0))
    return TrainState(model, adam, step, jax.random.key_data(jax.random.key(seed)), skipped, in_a_row)


def abstract(state):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    checkpoints = Checkpoints(folder, keep=3)
    for step in (1, 2):
        checkpoints.save(step, state_of(step))
    checkpoints.finish()
    return folder


@pytest.fixture
def copy(two, tmp_path):
    return Path(shutil.copytree(two, tmp_path / "checkpoints"))


def test_state_comes_back_whole(two):
    checkpoints = Checkpoints(two, keep=3)
    assert checkpoints.newest() == 2
    assert_equal(checkpoints.restore(2, abstract(state_of(0))), state_of(2))


def test_bytes_and_speed_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, state_of(1, width=1_000_000))
    checkpoints.finish()
    checkpoints.restore(checkpoints.newest(), abstract(state_of(0, width=1_000_000)))
    wrote, read = (message for message in caplog.messages if message.startswith("checkpoint 1: "))
    told = r"8\.\d MB in \d+\.\d s \([\d,]+ MB/s\)"  # a million floats, and as many of the optimizer
    assert re.fullmatch(f"checkpoint 1: wrote {told}", wrote), wrote
    assert re.fullmatch(rf"checkpoint 1: read {told}; checked before in \d+\.\d s", read), read


def test_names_on_disk_are_those_of_the_model(two):
    arrays = json.loads((two / "2/manifest.json").read_text())["arrays"]
    assert arrays["model/bigram/layers/weight"] == [[2, 16, 16], "float32"]
    assert arrays["opt_state/mu/bigram/table"] == [[32, 16], "float32"]
    assert not any("value" in name or "Param" in name for name in arrays)


def test_model_alone(two):
    model, step = restore_model(two, jax.eval_shape(lambda: state_of(0).model))
    assert step == 2
    assert_equal(model, state_of(2).model)
    model, step = restore_model(two, abstract(state_of(0).model), step=1)
    assert_equal(model, state_of(1).model)


def test_model_alone_needs_no_other_files(copy):
    for path in (copy / "2/training").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    model, step = restore_model(copy, abstract(state_of(0).model))
    assert step == 2
    assert_equal(model, state_of(2).model)


FILES = ["manifest.json", "model/_METADATA", "model/manifest.ocdbt", "training/manifest.ocdbt", "largest"]


@pytest.mark.parametrize("harm", ["delete", "truncate", "empty", "flip"])
@pytest.mark.parametrize("name", FILES)
def test_any_harm_to_the_newest_is_reported_and_the_one_before_is_used(copy, caplog, name, harm):
    files = [path for path in (copy / "2/model").rglob("*") if path.is_file()]
    path = max(files, key=lambda p: p.stat().st_size) if name == "largest" else copy / "2" / name
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {"truncate": data[:middle], "flip": data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]}.get(
            harm, b""
        )
    )
    if harm == "delete":
        path.unlink()
    if name == "manifest.json" and harm == "flip":
        path.write_bytes(data.replace(b'"files"', b'"fules"'))
    checkpoints = Checkpoints(copy, keep=3)
    assert checkpoints.newest() == 1
    assert "checkpoint 2 is damaged" in caplog.text and path.name in caplog.text
    assert_equal(checkpoints.restore(1, abstract(state_of(0))), state_of(1))
    assert (copy / "2.damaged").is_dir()  # kept for whoever wants to look
    checkpoints.save(2, state_of(2))  # its place is free
    checkpoints.finish()
    assert checkpoints.newest() == 2


def test_unfinished_one_is_reported_and_removed(copy, caplog):
    (copy / "2").rename(copy / "3.orbax-checkpoint-tmp")
    assert Checkpoints(copy, keep=3).newest() == 1
    assert "3.orbax-checkpoint-tmp was never finished" in caplog.text
    assert [path.name for path in copy.iterdir()] == ["1"]


def test_only_damaged_ones_are_no_reason_to_begin_again(copy):
    for step in (1, 2):
        (copy / f"{step}/model/manifest.ocdbt").unlink()
    for _ in range(2):  # nor at the second attempt
        with pytest.raises(CheckpointError, match="every checkpoint in .* is damaged"):
            Checkpoints(copy, keep=3).newest()
    with pytest.raises(CheckpointError, match="no unharmed checkpoint"):
        restore_model(copy, abstract(state_of(0).model))


def test_other_shapes_are_refused_by_name(two):
    with pytest.raises(ValueError, match=r"model/wide is \[1000\] in the checkpoint and \[999\] here \(and 1 more\)"):
        Checkpoints(two, keep=3).restore(2, abstract(state_of(0, width=999)))
    model = abstract(state_of(0).model)
    with pytest.raises(ValueError, match="model/wide is only in the checkpoint"):
        restore_model(two, {"bigram": model["bigram"]})
    with pytest.raises(ValueError, match="model/more is not in the checkpoint"):
        restore_model(two, model | {"more": model["wide"]})


def test_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 10):
        checkpoints.save(step, state_of(step, width=10))
    checkpoints.finish()
    assert saved_steps(tmp_path) == [10, 3]


def test_save_holds_the_state_of_its_moment(tmp_path):
    """The step after a save reuses the donated memory while the save is being written."""
    grow = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, keep=9)
    state, expected = state_of(0, width=2_000_000), {}
    for step in range(1, 5):
        state = grow(state)
        expected[step] = jax.tree.map(lambda x: np.array(x, copy=True), state)
        checkpoints.save(step, state)
        for _ in range(3):
            state = grow(state)
    checkpoints.finish()
    for step, at_save in expected.items():
        assert_equal(checkpoints.restore(step, abstract(state)), at_save)


@contextlib.contextmanager
def files_of_at_most(size):
    """What the writer sees of a full disk, with another error number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_older_ones_alone_and_the_next_save_works(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state_of(1, width=1_000_000))
    checkpoints.save(2, state_of(2, width=1_000_000))
    checkpoints.wait()
    with files_of_at_most(1_000_000):
        checkpoints.save(3, state_of(3, width=1_000_000))
        checkpoints.save(4, state_of(4, width=1_000_000))
        with pytest.raises(
            CheckpointError, match="checkpoint 4 could not be written .* GB free .* run the same command"
        ):
            checkpoints.finish()
    assert "checkpoint 3 could not be written" in caplog.text
    assert saved_steps(tmp_path) == [2, 1] and not damage(tmp_path / "2")
    checkpoints.save(5, state_of(5, width=1_000_000))
    checkpoints.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5"]
    assert_equal(checkpoints.restore(5, abstract(state_of(0, width=1_000_000))), state_of(5, width=1_000_000))
