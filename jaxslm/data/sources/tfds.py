"""Speech datasets of TensorFlow Datasets, prepared beforehand (`tfds build NAME`, or `download=True`).

TensorFlow itself (extra `tfds`) is needed for datasets with an `Audio` feature, whose class is built on it, and for
TFRecord files; a dataset in ArrayRecord files with plain tensors is read without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from jaxslm.data.report import Report
from jaxslm.data.sources import SPLITS, RawUtterance, split_of

EXTRA = "pip install 'jaxslm[tfds]'"


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """spec: `name` ("librispeech", "my_dataset/config:1.0.0"), `data_dir`, `download` (False), `language` ("").

    `splits`: ours to TFDS's ({"train": "train_clean100", "heldout": "dev_clean"}; default: all, with dev, test and
    validation held out); without a held-out split, a `heldout` fraction (0.05) is. Names of features: `audio`
    ("speech"), `text` ("text"), `speaker` ("speaker_id"), `id` ("id"); the last two may be absent. `sample_rate`: Hz,
    default the Audio feature's own. Audio is integer PCM, floats in [-1, 1] or the bytes of an encoded file.
    """
    builder = _builder(spec)
    features = {key: spec.get(key) or name for key, name in _FEATURES.items()}
    rate = _check_features(builder, features, spec)
    splits = _splits(builder, spec)
    for ours, theirs in splits:
        language, heldout = spec.get("language") or "", 0.0 if "heldout" in dict(splits) else spec.get("heldout", 0.05)
        for number, example in enumerate(_examples(builder, theirs)):
            where = f"tfds:{builder.info.full_name}/{theirs}:{number}"
            id = _text(example.get(features["id"])) or f"{theirs}-{number}"
            yield RawUtterance(
                id=id,
                where=where,
                text=_text(example[features["text"]]).strip(),
                audio=_audio(example[features["audio"]], rate),
                speaker=_text(example.get(features["speaker"])),
                language=language,
                split=split_of(id, heldout) if ours == "train" else ours,
            )


_FEATURES = {"audio": "speech", "text": "text", "speaker": "speaker_id", "id": "id"}


def _builder(spec: Mapping):
    """The TFDS builder of a dataset whose files are in place."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(f"kind 'tfds' needs TensorFlow Datasets: {EXTRA}") from error
    name = spec.get("name")
    if not name:
        raise ValueError("kind 'tfds' needs a `name`, such as 'librispeech'")
    try:
        builder = tfds.builder(name, data_dir=spec.get("data_dir"))
        if spec.get("download"):
            builder.download_and_prepare()
    except ModuleNotFoundError as error:
        raise ValueError(f"tfds:{name} needs {error.name}: {EXTRA}") from error
    except (tfds.core.DatasetNotFoundError, ValueError) as error:  # the whole message lists every dataset there is
        where = f" in data_dir={spec['data_dir']!r}" if spec.get("data_dir") else ""
        raise ValueError(f"no TFDS dataset {name!r}{where}: {str(error).splitlines()[0]}") from error
    if not builder.is_prepared():
        raise ValueError(
            f"tfds:{name} is not in {builder.data_dir}: run `tfds build {name}`, give its `data_dir`, "
            "or set download=True"
        )
    return builder


def _check_features(builder, features: Mapping[str, str], spec: Mapping) -> int:
    """The sample rate; ValueError listing the features when the audio's or the text's is missing."""
    known = builder.info.features
    for key in ("audio", "text", *(key for key in ("speaker", "id") if spec.get(key))):
        if features[key] not in known:
            raise ValueError(
                f"tfds:{builder.info.full_name} has no feature {features[key]!r} for `{key}`; "
                f"it has {', '.join(sorted(known))}"
            )
    rate = spec.get("sample_rate") or getattr(known[features["audio"]], "sample_rate", None)
    if not rate and known[features["audio"]].shape:  # a scalar is an encoded file, which states its own
        raise ValueError(
            f"tfds:{builder.info.full_name} does not state its sample rate: set `sample_rate` (librispeech: 16000)"
        )
    return rate or 0


def _splits(builder, spec: Mapping) -> list[tuple[str, str]]:
    """(ours, TFDS's), one each."""
    known = list(builder.info.splits)
    given = spec.get("splits")
    if not given:
        return [(SPLITS.get(name.split("_")[0].split("-")[0], "train"), name) for name in known]
    splits = [
        (ours, theirs) for ours, names in given.items() for theirs in ([names] if isinstance(names, str) else names)
    ]
    for ours, theirs in splits:
        if ours not in ("train", "heldout"):
            raise ValueError(f"`splits` names a split {ours!r}: use 'train' and 'heldout'")
        if theirs.split("[")[0] not in known:
            raise ValueError(f"tfds:{builder.info.full_name} has no split {theirs!r}; it has {', '.join(known)}")
    return splits


def _examples(builder, split: str) -> Iterator[Mapping]:
    """The examples in the files' order: by random access where the format has it, else through tf.data."""
    try:
        try:
            source = builder.as_data_source(split=split)
        except NotImplementedError:  # TFRecord
            import tensorflow_datasets as tfds

            yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
        else:
            yield from (source[i] for i in range(len(source)))
    except ModuleNotFoundError as error:
        raise ValueError(f"tfds:{builder.info.full_name} needs {error.name}: {EXTRA}") from error


def _audio(value, rate: int) -> bytes | tuple[np.ndarray, int]:
    """Bytes, or (samples, rate) of int16, int32 or float; int64, as in LibriSpeech, mostly holds 16-bit PCM."""
    if isinstance(value, bytes):
        return value
    samples = np.asarray(value)
    if samples.dtype.kind in "iu" and samples.dtype not in (np.int16, np.int32):
        wide = samples.size and (samples.max() >= 2**15 or samples.min() < -(2**15))
        samples = samples.astype(np.int32 if wide else np.int16)
    return samples, rate


def _text(value) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
