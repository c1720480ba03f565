import json
import pickle
import resource
import signal

import msgpack
import numpy as np
import pytest

from jaxslm.codec.codes import CodeSequence
from jaxslm.data.records import Records, Utterance, from_bytes, to_bytes, write_records
from jaxslm.units.alignment import Word
from jaxslm.units.units import UnitSequence


def utterance(number: int, **changes) -> Utterance:
    units = UnitSequence(np.array([5, 0, 99]), np.array([1, 3, 2]), 50.0)
    fields = dict(
        id=f"u{number}",
        text="héllo there",
        audio=bytes(range(256)) * 8,
        duration=0.12,
        words=(Word("héllo", 0.01, 0.05), Word("there", 0.05, 1 / 9)),
        words_from="file",
        units={"b" * 64: units, "a" * 64: UnitSequence(np.zeros(0), np.zeros(0), 12.5)},
        speaker="s",
        language="en",
        split="heldout" if number % 5 == 0 else "train",
    )
    return Utterance(**(fields | changes))


def test_record_keeps_every_field_exactly():
    for u in (utterance(3), Utterance(id="document", text="only text")):
        assert from_bytes(to_bytes(u)) == u
    same = utterance(3, units=dict(reversed(list(utterance(3).units.items()))))
    assert to_bytes(same) == to_bytes(utterance(3)), "the order of inventories is not part of a record"


def test_record_is_readable_without_this_package():
    fields = msgpack.unpackb(to_bytes(utterance(3)))
    assert fields["schema"] == 1
    units = fields["units"]["b" * 64]
    assert np.frombuffer(units["ids"], "<i4").tolist() == [5, 0, 99]
    assert np.frombuffer(units["durations"], "<i4").tolist() == [1, 3, 2]
    assert np.frombuffer(fields["word_times"], "<f8").tolist() == [0.01, 0.05, 0.05, 1 / 9]


def test_codes_are_kept_exactly_and_readable_without_this_package(tmp_path):
    small = CodeSequence(np.arange(12).reshape(4, 3), 50.0, 1279)
    coded = utterance(3, codes={"d" * 64: small, "c" * 64: CodeSequence(np.array([[70_000]]), 12.5, 1)}, audio=None)
    assert from_bytes(to_bytes(coded)) == coded
    codes = msgpack.unpackb(to_bytes(coded))["codes"]["d" * 64]
    assert np.frombuffer(codes["ids"], codes["dtype"]).reshape(-1, codes["codes_per_frame"]).tolist()[1] == [3, 4, 5]
    assert codes["dtype"] == "<u2" and codes["n_samples"] == 1279
    codec = dict(name="small", sha256="d" * 64, sample_rate=16_000, levels=3, codebook_sizes=[16] * 3)
    write_records(tmp_path, [coded], codecs=[codec])
    assert Records(tmp_path).manifest["codecs"] == [codec] and Records(tmp_path)[0] == coded
    assert Records(tmp_path).manifest["speech"] == {"train": 1}


def test_a_record_without_codes_is_as_it_was_before_there_were_any():
    assert "codes" not in msgpack.unpackb(to_bytes(utterance(3)))


def test_record_of_another_schema_is_refused():
    data = msgpack.packb(msgpack.unpackb(to_bytes(utterance(0))) | {"schema": 2})
    with pytest.raises(ValueError, match="schema 2.*prepare the data again"):
        from_bytes(data)


def test_folder_round_trip_over_shards(tmp_path):
    written = [utterance(i) for i in range(11)] + [Utterance(id="text", text="a document")]
    write_records(tmp_path, iter(written), records_per_shard=5, source=dict(kind="test"))
    records = Records(tmp_path)
    assert [records[i] for i in range(12)] == written
    assert records[-1] == written[-1] and records[np.int64(6)] == written[6]
    assert list(pickle.loads(pickle.dumps(records))) == written
    with pytest.raises(IndexError):
        records[12]
    manifest = records.manifest
    assert [shard["records"] for shard in manifest["shards"]] == [5, 5, 2]
    assert manifest["utterances"] == {"heldout": 3, "train": 9}
    assert manifest["speech"] == manifest["aligned"] == {"heldout": 3, "train": 8}
    assert manifest["source"] == {"kind": "test"}
    records.check()
    with pytest.raises(ValueError, match="already holds records"):
        write_records(tmp_path, written)


def test_same_utterances_give_the_same_files(tmp_path):
    for name in "ab":
        write_records(tmp_path / name, (utterance(i) for i in range(20)), records_per_shard=8)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert len(files) == 4
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_damage_is_found_and_named(tmp_path):
    write_records(tmp_path, (utterance(i) for i in range(6)), records_per_shard=3)
    shard = tmp_path / "records-00001.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(ValueError, match="records-00001.*changed"):
        Records(tmp_path).check()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="records-00001.*bytes"):
        Records(tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match="records-00001.*missing"):
        Records(tmp_path)


def test_writing_that_dies_leaves_nothing_complete(tmp_path):
    def dying():
        yield from (utterance(i) for i in range(7))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(tmp_path, dying(), records_per_shard=2)
    with pytest.raises(ValueError, match="no complete records"):
        Records(tmp_path)
    write_records(tmp_path, [utterance(0)], records_per_shard=2)  # what was left of the first attempt is gone
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.json", "records-00000.array_record"]
    with pytest.raises(ValueError, match="no utterance"):
        write_records(tmp_path / "empty", [])


def test_full_disk_says_so_and_keeps_earlier_folders(tmp_path):
    write_records(tmp_path / "earlier", [utterance(0)])
    noise = np.random.default_rng(0)
    big = (utterance(i, audio=noise.bytes(100_000)) for i in range(50))
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(OSError, match="free space"):
            write_records(tmp_path / "big", big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "big" / "manifest.json").exists()
    Records(tmp_path / "earlier").check()


@pytest.mark.parametrize("name", ["../x/records-00000.array_record", "sub/x", "sub\\x", "..", "/etc/hostname", ""])
def test_shard_outside_the_folder_is_refused(tmp_path, name):
    write_records(tmp_path / "x", [utterance(0)])
    path = tmp_path / "x" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["file"] = name
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="manifest.json"):
        Records(tmp_path / "x")


def test_manifest_of_another_schema_is_refused(tmp_path):
    write_records(tmp_path, [utterance(0)])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"schema": 9}))
    with pytest.raises(ValueError, match="schema 9"):
        Records(tmp_path)
