"""Golden ids of SpiRit-LM's released vocabulary, and what keeps ids from silently meaning something else."""

import dataclasses
import json

import numpy as np
import pytest

from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import Vocabulary, build_vocabulary


@dataclasses.dataclass(frozen=True)
class LlamaTwoShape:
    size: int = 32_000
    bos_id: int = 1
    eos_id: int = 2
    special_ids: tuple[int, ...] = (0, 1, 2)
    sha256: str = "a" * 64
    has_text: bool = True


@pytest.fixture
def spiritlm():
    return build_vocabulary(LlamaTwoShape(), 501, "b" * 64)


def test_spiritlm_ids(spiritlm):
    assert spiritlm.id("[Text]") == 32_000
    assert spiritlm.id("[Speech]") == 32_001
    assert spiritlm.id("[Hu0]") == 32_002
    assert spiritlm.id("[Hu500]") == 32_502
    assert (spiritlm.id("[ASR]"), spiritlm.id("[TTS]")) == (32_503, 32_504)
    assert spiritlm.padded_size == 32_512
    without_tasks = build_vocabulary(LlamaTwoShape(), 501, "b" * 64, tasks=())
    assert (without_tasks.size, without_tasks.padded_size) == (32_503, 32_512)


def test_every_added_id_has_one_string(spiritlm):
    for token_id in range(32_000, spiritlm.size):
        assert spiritlm.id(spiritlm.token(token_id)) == token_id
    with pytest.raises(ValueError, match="outside"):
        spiritlm.token(spiritlm.size)
    with pytest.raises(ValueError, match="Hu501"):
        spiritlm.id("[Hu501]")


def test_masks_split_the_vocabulary_and_never_allow_padding(spiritlm):
    text, speech = (spiritlm.modality_mask(m, stop=False) for m in ("text", "speech"))
    assert not (text & speech).any()
    assert text.sum() == 32_000 - 3 and speech.sum() == 501
    for modality in ("text", "speech"):
        mask = spiritlm.modality_mask(modality)
        assert mask.shape == (32_512,) and not mask[spiritlm.size :].any()
        assert mask[spiritlm.eos_id] and mask[list(spiritlm.marker_ids)].all() and not mask[spiritlm.bos_id]
    assert np.array_equal(np.flatnonzero(speech), np.arange(32_002, 32_503))


def test_ids_of_speech_alone():
    """TWIST's and Slam's 500 units after padding, begin and end; no markers."""
    vocabulary = build_vocabulary(load_tokenizer("none"), 500, "b" * 64)
    assert vocabulary.describe() == "text 0..2, units 3..502, padded to 512"
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.text_special_ids) == (1, 2, (0, 1, 2))
    assert (vocabulary.id("[Hu0]"), vocabulary.id("[Hu499]")) == (3, 502)
    assert not vocabulary.has_text and vocabulary.marker_ids == vocabulary.speech_start == ()
    assert np.flatnonzero(vocabulary.modality_mask("speech")).tolist() == [2, *range(3, 503)]
    assert np.flatnonzero(vocabulary.modality_mask("speech", stop=False)).tolist() == [*range(3, 503)]
    assert np.flatnonzero(vocabulary.modality_mask("text")).tolist() == [2]
    with pytest.raises(ValueError, match="not an added token"):
        vocabulary.id("[Speech]")
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


def test_json_round_trip(spiritlm):
    assert spiritlm.has_text and spiritlm.speech_start == (32_001,)
    assert Vocabulary.from_json(json.loads(json.dumps(spiritlm.to_json()))) == spiritlm


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (build_vocabulary(LlamaTwoShape(), 501, "c" * 64), "another unit inventory.*cccc"),
        (build_vocabulary(LlamaTwoShape(sha256="d" * 64), 501, "b" * 64), "another text tokenizer.*dddd"),
        (build_vocabulary(LlamaTwoShape(), 500, "b" * 64), "another vocabulary"),
    ],
)
def test_another_vocabulary_is_refused_by_name(spiritlm, other, complaint):
    spiritlm.check_same(spiritlm, "run/vocabulary.json")
    with pytest.raises(ValueError, match=f"run/vocabulary.json.*{complaint}"):
        spiritlm.check_same(other, "run/vocabulary.json")
