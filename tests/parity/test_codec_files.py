"""Clips through an imported codec, as the commands send them, against transformers, clip by clip."""

import numpy as np
import pytest

from jaxslm.codec.identity import describe_codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.tasks.codec_files import open_codec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_batches_of_encodec_are_what_transformers_gives_clip_by_clip(tmp_path):
    torch.manual_seed(0)
    sizes = dict(num_filters=4, hidden_size=16, codebook_size=16, codebook_dim=16, num_lstm_layers=1)
    config = transformers.EncodecConfig(**sizes, upsampling_ratios=[4, 2], target_bandwidths=[48.0])
    theirs = transformers.EncodecModel(config)
    theirs.save_pretrained(tmp_path)
    codec, _ = open_codec(tmp_path)
    assert describe_codec(codec, "")["codebook_sizes"] == [16] * 4
    runner = CodecRunner(codec)
    clips = [(0.1 * np.random.default_rng(n).normal(size=n)).astype(np.float32) for n in (5, 1000, 1001)]
    codes = runner.encode(clips)
    for clip, ours, samples in zip(clips, codes, runner.decode(codes), strict=True):
        with torch.no_grad():
            frames = theirs.encoder(torch.tensor(clip)[None, None])
            codes_Qx1xT = theirs.quantizer.encode(frames, 48.0)
            decoded = theirs.decoder(theirs.quantizer.decode(codes_Qx1xT))[0, 0].numpy()
        np.testing.assert_array_equal(ours.ids, codes_Qx1xT[:, 0].T)
        np.testing.assert_allclose(samples, decoded[: len(clip)], atol=1e-5)


def test_a_folder_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="llama"):
        open_codec(tmp_path)
