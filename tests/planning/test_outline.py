"""What a plan takes of a config whose data and tokenizer are not here."""

import pytest

from jaxslm.configure import load_config
from jaxslm.planning.outline import outline, planned_vocabulary
from jaxslm.sharding import make_partitioner

RECIPE = "configs/spiritlm_7b.py"


def test_the_vocabulary_without_its_tokenizer():
    vocabulary = planned_vocabulary(load_config(RECIPE).data)
    assert (vocabulary.size, vocabulary.padded_size) == (32_505, 32_512)  # 32,000 + 4 markers + 501
    untold = load_config(RECIPE, [("data.text_tokens", "0")])
    with pytest.raises(
        ValueError, match=r"data.tokenizer=data/llama-2-7b/tokenizer.model is not here: .*text_tokens=N"
    ):
        planned_vocabulary(untold.data)


def test_a_tokenizer_that_is_here_is_asked():
    data = load_config(RECIPE, [("data.tokenizer", "byte")]).data
    assert planned_vocabulary(data).size < 1000  # not text_tokens


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("configs/soundstream_16k.py", "config.task is 'codec': plans are made of the task 'speech_text_lm'"),
        ("configs/audiolm_coarse.py", "data.mixture trains an acoustic stage, whose codec is not at hand"),
    ],
)
def test_other_programs_are_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        outline(load_config(recipe), make_partitioner({}))
