import numpy as np
import pytest

from jaxslm.benchmarks import codec, codec_training
from jaxslm.benchmarks.codec_models import write

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    write(folder, small=True, seconds=0.5)
    return folder


@pytest.mark.parametrize("part", ["dac_decode", "encodec_encode", "encodec_decode"])
def test_both_sides_code_alike(part, folder):
    for side, make in (("ours", codec.our_coding), ("peer", codec.peer_coding)):
        np.save(folder / f"{part}_{side}.npy", make(part, folder)())
    apart = codec.outputs_apart(part, folder)
    assert apart.get("share_of_equal_codes", 1) == 1
    assert apart.get("largest_difference", 0) < 1e-4 * apart.get("deviation", 1)


def test_a_step_of_training_is_built_as_the_task_builds_it():
    assert callable(codec_training.our_step(1, True))


@pytest.mark.slow  # to compile
def test_steps_of_training_have_the_losses_of_the_same_steps_in_torch(folder):
    ours, peer, clips = (
        codec_training.our_step(1, True),
        codec_training.peer_step(folder, True),
        codec_training.clips(1),
    )
    steps = {"ours": [], "peer": []}
    for _ in range(4):
        samples = next(clips)
        steps["ours"].append(ours(samples))
        steps["peer"].append(peer(samples))
    apart = codec.losses_apart(steps)
    assert set(apart) == {"mel", "waveform", "adversarial", "feature", "commitment", "discriminators"}
    assert max(apart.values()) < 1e-3
