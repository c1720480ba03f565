import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxslm.audio import SAMPLE_RATE
from jaxslm.units.alignment import AlignmentError, load_aligner
from jaxslm.units.neural_ctc import NeuralCtc
from tests.models.speech_models import make_clips, make_model, save_model, torch

TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C", "D", "E", "'")


def save_ctc(folder, family="wav2vec2-base", vocabulary=None):
    model = make_model(family, "ForCTC")
    save_model(model, folder, do_normalize=False)
    (folder / "vocab.json").write_text(json.dumps(vocabulary or {token: i for i, token in enumerate(TOKENS)}))
    return model


def test_log_probabilities_are_those_of_transformers_in_buckets_and_alone(tmp_path):
    theirs = save_ctc(tmp_path)
    ours = NeuralCtc(tmp_path)
    assert (ours.labels, ours.blank, ours.frame_rate) == ([*TOKENS, ""], 0, 50)  # the head has 12 rows
    clips = make_clips([9_000, 40_000, 31_999])
    together = ours.log_probs(clips)
    for clip, found in zip(clips, together, strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor(clip)[None]).logits[0].log_softmax(-1).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(found, ours.log_probs([clip])[0], atol=1e-5)


def test_the_aligner_of_a_folder(tmp_path):
    """Random weights hear nothing: what is tested is that words come out whole, in order and inside the clip."""
    save_ctc(tmp_path)
    aligner = load_aligner(f"ctc:{tmp_path}")
    aligner.max_deficit = np.inf
    clips = make_clips([2 * SAMPLE_RATE, SAMPLE_RATE])
    first, second = aligner.align_batch(clips, ["Abba, bad!", "ace 東京"])
    assert [word.text for word in first] == ["Abba,", "bad!"] and [word.text for word in second] == ["ace", "東京"]
    for words, seconds in ((first, 2), (second, 1)):
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times) and 0 <= times[0] and times[-1] <= seconds
    aligner.max_deficit = -1
    assert isinstance(aligner.align_batch(clips[:1], ["abba"])[0], AlignmentError)


def test_mms_wants_a_language(tmp_path):
    vocabulary = {"eng": {token: i for i, token in enumerate(TOKENS)}, "fra": {"<pad>": 0, "|": 1, "E": 2}}
    model = save_ctc(tmp_path, "mms", vocabulary)
    with pytest.raises(ValueError, match="has the languages eng, fra"):
        load_aligner(f"ctc:{tmp_path}")
    adapters = {name: value.detach().numpy() for name, value in model._get_adapters().items()}
    save_file(adapters, tmp_path / "adapter.fra.safetensors")
    assert load_aligner(f"ctc:{tmp_path}@fra").model.labels[:3] == ["<pad>", "|", "E"]
    with pytest.raises(ValueError, match="adapter.eng.safetensors"):
        load_aligner(f"ctc:{tmp_path}@eng")


def test_a_vocabulary_of_another_model(tmp_path):
    save_ctc(tmp_path, vocabulary={token: i for i, token in enumerate("abcdefghijklmnopq")})
    with pytest.raises(ValueError, match="has 17 labels and the CTC head 12"):
        NeuralCtc(tmp_path)
