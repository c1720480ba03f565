import io
import json

import jax
import numpy as np
import soundfile

from jaxslm.audio.io import encode_flac
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.evaluation.reconstructions import Recording
from jaxslm.tasks.codec_samples import draw_media, pick_recordings, write_samples
from jaxslm.training.metrics import Picture, Sound
from tests.codec.codecs import small_codec

RATE = 16_000


def clip(seconds=0.1, rate=RATE):
    return (0.3 * np.sin(np.arange(int(seconds * rate)) / 9)).astype(np.float32)


def test_held_out_clips_are_picked_cut_and_resampled(tmp_path):
    fields = dict(audio=encode_flac(clip(10.5)), duration=10.5)
    utterances = [Utterance("t", **fields), Utterance("document", "text", split="heldout")]
    write_records(tmp_path / "train", utterances)
    assert [r.id for r in pick_recordings(Records(tmp_path / "train"), 2, RATE)] == ["t"]
    held = [Utterance(id, "said", split="heldout", **fields) for id in "abc"]
    write_records(tmp_path / "both", [*utterances, *held])
    found = pick_recordings(Records(tmp_path / "both"), 2, 8000)
    assert [(r.id, r.text, len(r.samples)) for r in found] == [("a", "said", 80_000), ("b", "said", 80_000)]


def test_a_run_leaves_sound_scores_and_a_page_with_its_curves(tmp_path):
    folder = tmp_path / "run" / "samples"
    folder.parent.mkdir()
    (folder.parent / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n")
    recordings = [Recording("a", clip(), "some text"), Recording("b", clip(0.09))]
    codec = Codec(small_codec(dropout=1.0).config, jax.random.key(0))  # weight norm not folded
    for step in (7, 8):  # a later evaluation writes over what is there
        text = write_samples(codec, recordings, folder, step)
    assert "run (" in text and "SI-SDR" in text and "kbps" in text
    page = (folder / "index.html").read_text()
    assert "run at step 8" in page and "Curves of the run" in page and "3 levels" in page
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "original", "reconstruction_1", "reconstruction_2", "reconstruction_3",
    }  # fmt: skip
    assert len(list(folder.glob("*/b.wav"))) == 4


def test_a_codec_without_dropout_is_heard_at_all_levels_only(tmp_path):
    write_samples(small_codec(), [Recording("a", clip())], tmp_path / "samples", 1)
    assert len(list(tmp_path.glob("samples/reconstruction_*/a.wav"))) == 1


def test_tensorboard_gets_sounds_and_spectrograms_of_each_clip():
    codec = small_codec()
    media = draw_media(codec, [Recording("a", clip()), Recording("b", 0 * clip(0.09))])
    names = [f"{id}/{kind}" for id in "ab" for kind in ("original", "reconstruction")]
    sounds, pictures = ([each for each in media if isinstance(each, kind)] for kind in (Sound, Picture))
    assert [each.name for each in sounds] == [each.name for each in pictures] == names
    original, reconstruction = (soundfile.read(io.BytesIO(sound.wav))[0] for sound in sounds[:2])
    np.testing.assert_allclose(original, clip(), atol=2**-15)
    runner = CodecRunner(codec)
    np.testing.assert_allclose(reconstruction, runner.decode(runner.encode([clip()]))[0], atol=2**-14)
    assert [sound.n_samples for sound in sounds] == [1600, 1600, 1440, 1440]


def test_without_audio_there_is_nothing_to_write(tmp_path):
    assert "no clip" in write_samples(small_codec(), [], tmp_path / "samples", 1)
    assert not (tmp_path / "samples").exists()
