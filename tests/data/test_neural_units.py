"""Preparation with a neural encoder: batches, clips longer than it hears at once, and a model folder that moves."""

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import decode_flac
from jaxslm.data.prepare import prepare, prepared_folder
from jaxslm.data.records import Records
from tests.data.tones import RATE, config, files, write_manifest

pytest.importorskip("transformers")


def test_units_of_a_model_and_a_model_that_moved(tmp_path):
    from tests.models.speech_models import make_model, save_model

    folder, rng = tmp_path / "tones", np.random.default_rng(0)
    folder.mkdir()
    for i, seconds in enumerate((1, 3, 40, 0.5)):  # 40 s: above the longest bucket, below max_seconds
        soundfile.write(folder / f"{i}.wav", rng.uniform(-0.3, 0.3, int(seconds * RATE)), RATE)
    write_manifest(folder, [dict(audio_filepath=f"{i}.wav", text="", split="train") for i in range(4)])
    model = tmp_path / "hubert"
    save_model(make_model("hubert-base"), model)
    units = dict(encoder=str(model), layer=1, clusters=4)
    first = prepare(config(folder, units=units), tmp_path / "cache", progress=False)
    for utterance in Records(first.folder):
        sequence = utterance.units[first.inventory.sha256]
        assert sequence == first.inventory.encode(decode_flac(utterance.audio))
        assert sequence.durations.sum() == (round(utterance.duration * RATE) - 400) // 320 + 1

    before = files(first.folder)
    model.rename(tmp_path / "moved")
    next(first.units.glob("*.array_record")).unlink()
    units["encoder"] = str(tmp_path / "moved")
    again = prepare(config(folder, units=units), tmp_path / "cache", progress=False)
    assert again.inventory.encoder_folder == str(tmp_path / "moved") and files(again.folder) == before


def test_an_inventory_whose_encoder_is_gone_is_refused_before_audio_is_read(tmp_path):
    from tests.models.speech_models import make_model, save_model

    folder, rng = tmp_path / "tones", np.random.default_rng(0)
    folder.mkdir()
    soundfile.write(folder / "0.wav", rng.uniform(-0.3, 0.3, RATE), RATE)
    write_manifest(folder, [dict(audio_filepath="0.wav", text="", split="train")])
    model = save_model(make_model("hubert-base"), tmp_path / "hubert")
    made = prepare(config(folder, units=dict(encoder=str(model), layer=1, clusters=4)), tmp_path / "a", progress=False)
    model.rename(tmp_path / "moved")
    given = dict(inventory=str(made.units / "inventory"))
    with pytest.raises(
        ValueError, match="hubert-.*-l1-k4 needs its encoder, .* name their folder by data.units.encoder"
    ):
        prepare(config(folder, units=given), tmp_path / "b", progress=False)
    assert not list((tmp_path / "b").glob("audio-*/records-*"))
    assert prepared_folder(config(folder, units=given), tmp_path / "a") == made.folder  # for which no encoder is needed
    moved = given | dict(encoder=str(tmp_path / "moved"))
    with pytest.raises(ValueError, match="data.units.dtype=bfloat16, but the units of .* have float32; leave it out"):
        prepare(config(folder, units=moved | dict(dtype="bfloat16")), tmp_path / "b", progress=False)
    assert prepare(config(folder, units=moved), tmp_path / "b", progress=False).inventory == made.inventory
