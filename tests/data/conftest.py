"""The corpus of corpora.py as a token index, built once a session."""

import types

import pytest

from jaxslm.data.records import Records
from jaxslm.data.token_index import build_token_index
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import build_vocabulary
from tests.data.corpora import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    units = write_corpus(folder / "records")
    tokenizer = load_tokenizer("byte")
    index = build_token_index(folder / "records", tokenizer, units, folder, progress=False)
    vocabulary = build_vocabulary(tokenizer, units.size, units.sha256)
    return types.SimpleNamespace(
        folder=folder, units=units, tokenizer=tokenizer, index=index, vocabulary=vocabulary,
        records=Records(folder / "records"),
    )  # fmt: skip
