"""Devices of one process share the batches of a speech encoder: the features are those of one device."""

import pytest

from tests.mesh.devices import run_on


def test_devices_share_a_batch(tmp_path):
    pytest.importorskip("transformers")
    from tests.models.speech_models import make_model, save_model

    save_model(make_model("hubert-base"), tmp_path)
    assert run_on(4, "run_encoder", tmp_path) == "equal"
