"""Shards are written while the next are read or encoded."""

import threading

import pytest

from jaxslm.data import audio_shards, derived_shards, readers
from jaxslm.data.prepare import prepare
from jaxslm.data.shards import ShardWriter
from jaxslm.units.inventory import UnitInventory
from tests.data.tones import config, write_corpus


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(audio_shards, "SHARD", 4)


def hold(monkeypatch, writer, write: str, worker, work: str, call: int) -> list[bool]:
    """Lets the first call of `write` wait for that call of `work`; a list that says whether that came in the end."""
    reached, calls, came = threading.Event(), [], []
    real_write, real_work = getattr(writer, write), getattr(worker, work)

    def working(*arguments, **options):
        calls.append(work)
        if len(calls) == call:
            reached.set()
        return real_work(*arguments, **options)

    def writing(*arguments, **options):
        if not came:
            came.append(reached.wait(20))
        return real_write(*arguments, **options)

    monkeypatch.setattr(writer, write, writing)
    monkeypatch.setattr(worker, work, working)
    return came


def test_reading_goes_on_while_a_shard_is_written(tmp_path, monkeypatch):
    write_corpus(tmp_path / "tones", 12)
    came = hold(monkeypatch, ShardWriter, "close_into", readers, "read_pieces", 12)  # the last of the third shard
    prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False, workers=1)
    assert came == [True]


def test_encoding_goes_on_while_a_shard_is_written(tmp_path, monkeypatch):
    write_corpus(tmp_path / "tones", 12)
    came = hold(monkeypatch, derived_shards, "_write", UnitInventory, "encode_batch", 3)  # a call a shard
    prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False, workers=1)
    assert came == [True]
