"""The dataset is built here, as ArrayRecord and as TFRecord files; TensorFlow is needed only where the test says so."""

import numpy as np
import pytest

from jaxslm.audio.io import decode_flac
from jaxslm.data.prepare import prepare
from jaxslm.data.records import Records
from jaxslm.data.report import Report
from jaxslm.data.sources import read_source, split_of

tfds = pytest.importorskip("tensorflow_datasets", reason="pip install 'jaxslm[tfds]'")
RATE = 8000


def tone(i: int) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * (200 + 50 * i) * np.arange(RATE // 2 + i) / RATE)).astype(np.int16)


def build(
    folder, *, audio_feature=None, file_format="array_record", dtype=np.int16, splits=("train_clean", "dev_clean")
):
    features = {
        "speech": audio_feature or tfds.features.Tensor(shape=(None,), dtype=dtype),
        "text": tfds.features.Text(),
        "speaker_id": tfds.features.Scalar(np.int64),
        "id": tfds.features.Text(),
    }
    with tfds.core.registered.skip_registration():  # the source must find it by its files alone

        class TinySpeech(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")
            url_infos = {}  # nothing to download

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, download_manager):
                return {split: self._generate_examples(split) for split in splits}

            def _generate_examples(self, split):
                for i in range(6 if split == "train_clean" else 2):
                    id = f"{split}-{i}"
                    yield (
                        id,
                        {"speech": tone(i).astype(dtype), "text": f" Tone number {i} ", "speaker_id": 40 + i, "id": id},
                    )

    TinySpeech(data_dir=folder, file_format=file_format).download_and_prepare()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    build(folder)
    return str(folder)


def read(data_dir, **spec):
    return list(read_source(dict(kind="tfds", name="tiny_speech", data_dir=data_dir) | spec, Report()))


def check(utterances):
    assert len(utterances) == 8 and sum(utterance.split == "heldout" for utterance in utterances) == 2
    for utterance in utterances:
        i = int(utterance.id.split("-")[1])
        assert utterance.id.startswith("train_clean" if utterance.split == "train" else "dev_clean")
        assert (utterance.text, utterance.speaker) == (f"Tone number {i}", str(40 + i))
        samples, rate = utterance.audio
        assert rate == RATE and samples.dtype == np.int16
        np.testing.assert_array_equal(samples, tone(i))


def test_reads_what_was_built(data_dir):
    check(read(data_dir, sample_rate=RATE))
    check(read(data_dir, sample_rate=RATE, splits=dict(train="train_clean", heldout=["dev_clean"])))


def test_splits(data_dir):
    ids = [u.id for u in read(data_dir, sample_rate=RATE, splits=dict(heldout="dev_clean"))]
    assert sorted(ids) == ["dev_clean-0", "dev_clean-1"]
    train = read(data_dir, sample_rate=RATE, splits=dict(train="train_clean[:4]"), heldout=0.5)
    assert [u.split for u in train] == [split_of(u.id, 0.5) for u in train]
    assert len(train) == 4


def test_features_may_have_other_names_or_be_absent(data_dir):
    utterances = read(data_dir, sample_rate=RATE, text="id", speaker="text", language="en")
    assert utterances[0].text == utterances[0].id and utterances[0].speaker.strip().startswith("Tone")
    assert utterances[0].language == "en" and utterances[0].where.startswith("tfds:tiny_speech/1.0.0/")


def test_into_records(data_dir, tmp_path):
    source = dict(kind="tfds", name="tiny_speech", data_dir=data_dir, sample_rate=RATE)
    prepared = prepare(
        dict(sources=dict(tones=source), units=dict(encoder="mfcc", clusters=3)), tmp_path, progress=False
    )
    records = Records(prepared.folder)
    assert records.manifest["utterances"] == {"train": 6, "heldout": 2}
    assert {u.text for u in records} == {f"Tone number {i}" for i in range(6)}
    assert all(len(decode_flac(u.audio)) == pytest.approx(8000, abs=20) for u in records)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(audio="waveform"), "no feature 'waveform' for `audio`; it has id, speaker_id, speech, text"),
        (dict(text="transcript"), "no feature 'transcript' for `text`; it has id, speaker_id, speech, text"),
        (dict(speaker="spk"), "no feature 'spk' for `speaker`"),
        (dict(sample_rate=None), "does not state its sample rate"),
        (dict(splits=dict(train="train")), "no split 'train'; it has"),
        (dict(splits=dict(test="dev_clean")), "a split 'test': use 'train' and 'heldout'"),
        (dict(name="tiny_speeches"), "no TFDS dataset 'tiny_speeches' in data_dir="),
        (dict(name="librispeech/nothing"), "no TFDS dataset 'librispeech/nothing'"),
        (dict(name=""), "needs a `name`"),
    ],
)
def test_wrong_settings_are_named(data_dir, wrong, message):
    with pytest.raises(ValueError) as error:
        read(data_dir, **(dict(sample_rate=RATE) | wrong))
    assert message in str(error.value) and len(str(error.value)) < 400


def test_int64_and_float_samples(tmp_path):
    build(tmp_path / "int64", dtype=np.int64)
    check(read(str(tmp_path / "int64"), sample_rate=RATE))
    build(tmp_path / "float", dtype=np.float32)
    assert {u.audio[0].dtype for u in read(str(tmp_path / "float"), sample_rate=RATE)} == {np.dtype(np.float32)}


def test_audio_feature(tmp_path):
    pytest.importorskip("tensorflow", reason="pip install 'jaxslm[tfds]': TFDS's Audio feature needs TensorFlow")
    build(tmp_path, audio_feature=tfds.features.Audio(sample_rate=RATE, dtype=np.int64), dtype=np.int64)
    check(read(str(tmp_path)))  # it states its sample rate


def test_tfrecord_files(tmp_path):
    pytest.importorskip("tensorflow", reason="pip install 'jaxslm[tfds]': TFRecord files are read by TensorFlow")
    build(tmp_path, file_format="tfrecord")
    check(read(str(tmp_path), sample_rate=RATE))


def test_without_tensorflow_datasets(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxslm\[tfds\]'"):
        read("")
