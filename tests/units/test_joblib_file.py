import bz2
import gzip
import io
import lzma
import os
import pickle
import zlib

import numpy as np
import pytest

from jaxslm import restricted_pickle
from jaxslm.units import joblib_file
from jaxslm.units.joblib_file import read_joblib_kmeans

joblib = pytest.importorskip("joblib")
cluster = pytest.importorskip("sklearn.cluster")


@pytest.fixture(scope="module")
def fitted():
    frames = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    return cluster.MiniBatchKMeans(12, n_init=1, random_state=np.random.RandomState(0)).partial_fit(frames)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_centroids_are_those_that_joblib_loads(fitted, tmp_path, compress):
    joblib.dump(fitted, tmp_path / "km.bin", compress=compress)
    centroids = read_joblib_kmeans(tmp_path / "km.bin")
    assert centroids.dtype == np.float32 and centroids.shape == (12, 5)
    assert np.array_equal(centroids, joblib.load(tmp_path / "km.bin").cluster_centers_)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_precision(tmp_path, protocol):
    frames = np.random.default_rng(0).normal(size=(300, 5))
    fitted = cluster.KMeans(12, n_init=1).fit(frames)
    fitted.cluster_centers_ = np.asfortranarray(fitted.cluster_centers_.astype(">f8"))
    joblib.dump(fitted, tmp_path / "km.bin", protocol=protocol)
    assert np.array_equal(read_joblib_kmeans(tmp_path / "km.bin"), fitted.cluster_centers_.astype(np.float32))
    with open(tmp_path / "km.pickle", "wb") as file:
        pickle.dump(fitted, file, protocol=max(protocol, 3))
    assert np.array_equal(read_joblib_kmeans(tmp_path / "km.pickle"), fitted.cluster_centers_.astype(np.float32))


def test_a_name_of_an_older_scikit_learn_is_read(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "km.bin", protocol=2)
    data = (tmp_path / "km.bin").read_bytes()
    assert data.count(b"csklearn.cluster._kmeans\n") == 1
    (tmp_path / "km.bin").write_bytes(data.replace(b"csklearn.cluster._kmeans\n", b"csklearn.cluster.k_means_\n"))
    assert np.array_equal(read_joblib_kmeans(tmp_path / "km.bin"), fitted.cluster_centers_)


class Calls:
    """Pickles as a call of the function with the arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(mark):
    """Payloads that write the file `mark` when they are unpickled."""
    write = f"open({str(mark)!r}, 'w').close()"
    nested = np.array([Calls(exec, write)], dtype=object)
    yield "system", Calls(os.system, f"touch {mark}")
    yield "eval", Calls(eval, write)
    yield "exec", Calls(exec, write)
    yield "getattr", Calls(getattr, Calls(__import__, "os"), "system")
    yield "inside", {"cluster_centers_": Calls(exec, write)}
    yield "object array", nested
    yield "partial", Calls(__import__("functools").partial, exec, write)
    estimator = cluster.KMeans(2)
    estimator.cluster_centers_ = nested
    yield "object array in the estimator", estimator
    estimator = cluster.KMeans(2)
    estimator.cluster_centers_, estimator.random_state = np.zeros((2, 2)), Calls(exec, write)
    yield "beside the centroids", estimator


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    mark = tmp_path / "it-ran"
    for name, payload in hostile(mark):
        for dump in (joblib.dump, lambda value, file, protocol: pickle.dump(value, file, protocol=protocol)):
            stream = io.BytesIO()
            dump(payload, stream, protocol=protocol)
            (tmp_path / "km.bin").write_bytes(stream.getvalue())
            with pytest.raises(ValueError, match="km.bin was not read and nothing in it was run"):
                read_joblib_kmeans(tmp_path / "km.bin")
            assert not mark.exists(), name
    joblib.dump(Calls(exec, f"open({str(mark)!r}, 'w').close()"), tmp_path / "km.bin")
    joblib.load(tmp_path / "km.bin")
    assert mark.exists()  # the payloads are live: joblib itself runs them


def opcodes(mark):
    """Programs in opcodes that `pickle.dump` does not write."""
    arguments = f"(S'touch {mark}'\n"
    yield b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n."  # INST
    yield b"(cos\nsystem\nS'touch " + str(mark).encode() + b"'\no."  # OBJ
    yield f"cnumpy\ndtype\n{arguments}tR.".encode()  # a dtype that is none
    yield b"\x82\x01."  # EXT1
    yield b"Pelsewhere\n."  # PERSID
    yield b"\x80\x02cnumpy\nndarray\n}S'__reduce__'\nNsb."  # a state for a class
    yield b"\x80\x04cnumpy\ndtype\n)}\x92."  # NEWOBJ_EX
    yield b"(S'a'\nlp0\n(tR."  # calls a list
    yield b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(K\x01tcnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI0\n(Natb."


def test_hostile_opcodes_are_refused(tmp_path):
    mark = tmp_path / "it-ran"
    for program in opcodes(mark):
        (tmp_path / "km.bin").write_bytes(program)
        with pytest.raises(ValueError, match="km.bin was not read and nothing in it was run"):
            read_joblib_kmeans(tmp_path / "km.bin")
        assert not mark.exists()


DOUBLED = b")" + b"2\x86" * 60  # a pair of one pair of one pair of ...: 61 tuples, 2**60 ways through them
WRAPPER = (
    b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(X\x05\x00\x00\x00dtypecnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R"
)


@pytest.mark.parametrize(
    "program, message",
    [
        (b"}" + DOUBLED + b"Ns.", "it has a key of type tuple"),
        (b"}\x8a\x08" + (2**61 - 1).to_bytes(8, "little") + b"Ns.", "it has a key of type int"),
        (b"\x8f.", "an opcode that arrays and settings do not need"),
        (b"\x96" + (1 << 40).to_bytes(8, "little") + b"x.", "truncated, damaged"),
        (b"cnumpy\ndtype\n" + DOUBLED + b"\x85R.", "it holds an array of something else than numbers"),
        (WRAPPER + b"X\x05\x00\x00\x00shape" + DOUBLED + b"ub.", "something else than two sizes or one for a shape"),
        (WRAPPER + b"X\x05\x00\x00\x00shapeK\x02\x8a\x08" + bytes(7) + b"\x7f\x86ub.", "two sizes or one for a shape"),
    ],
)
def test_programs_that_would_take_for_ever_or_all_memory_are_refused(tmp_path, program, message):
    (tmp_path / "km.bin").write_bytes(b"\x80\x04" + program)
    with pytest.raises(ValueError, match=f"km.bin .*({message})"):
        read_joblib_kmeans(tmp_path / "km.bin")


def test_sizes_and_opcodes_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(joblib_file, "_LIMIT", 1000)
    for data in (bytes(1001), zlib.compress(bytes(1001)), bz2.compress(bytes(1001)), lzma.compress(bytes(1001))):
        (tmp_path / "km.bin").write_bytes(data)
        with pytest.raises(ValueError, match="km.bin .*(larger than the 1,000 bytes|LZMAError)"):
            read_joblib_kmeans(tmp_path / "km.bin")
    encoded = b"c_codecs\nencode\nq\x00X\x64\x00\x00\x00" + b"x" * 100 + b"X\x06\x00\x00\x00latin1\x86q\x010"
    (tmp_path / "km.bin").write_bytes(b"\x80\x04" + encoded + b"h\x00h\x01R0" * 11 + b"N.")
    with pytest.raises(ValueError, match="km.bin .*it makes more bytes than it has"):
        read_joblib_kmeans(tmp_path / "km.bin")
    monkeypatch.setattr(restricted_pickle._Opcodes, "left", 100)
    (tmp_path / "km.bin").write_bytes(b"]" * 101)
    with pytest.raises(ValueError, match="km.bin .*it has more than 2,000,000 opcodes"):
        read_joblib_kmeans(tmp_path / "km.bin")


def test_a_truncated_or_foreign_file_is_refused_by_name(fitted, tmp_path):
    for compress in (0, 3):
        joblib.dump(fitted, tmp_path / "whole.bin", compress=compress)
        data = (tmp_path / "whole.bin").read_bytes()
        for n in [0, 1, 2, *range(10, len(data) - 1, 97)]:
            (tmp_path / "km.bin").write_bytes(data[:n])
            with pytest.raises(ValueError, match="km.bin is truncated, damaged or no joblib file of k-means"):
                read_joblib_kmeans(tmp_path / "km.bin")
    joblib.dump(cluster.KMeans(2), tmp_path / "km.bin")
    with pytest.raises(ValueError, match="cluster_centers_"):  # never fitted
        read_joblib_kmeans(tmp_path / "km.bin")
    (tmp_path / "km.bin").write_bytes(b"ZF0x1234")
    with pytest.raises(ValueError, match="joblib's old or its LZ4 format; save it again"):
        read_joblib_kmeans(tmp_path / "km.bin")
    for compress in (zlib.compress, gzip.compress, bz2.compress):
        (tmp_path / "km.bin").write_bytes(compress(b"this is no pickle"))
        with pytest.raises(ValueError, match="km.bin"):
            read_joblib_kmeans(tmp_path / "km.bin")


def test_changed_bytes_never_raise_anything_else(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "whole.bin")
    whole, rng = (tmp_path / "whole.bin").read_bytes(), np.random.default_rng(0)
    for _ in range(700):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        (tmp_path / "km.bin").write_bytes(data)
        try:
            assert read_joblib_kmeans(tmp_path / "km.bin").ndim == 2  # only numbers were hit
        except ValueError as error:
            assert "km.bin" in str(error)
