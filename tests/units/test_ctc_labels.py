import json

import pytest

from jaxslm.units.ctc_labels import read_labels

VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "'": 8}


def write(folder, vocabulary=VOCABULARY, blank=0, **files):
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": blank}))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_labels_are_those_of_the_tokenizer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    write(tmp_path, VOCABULARY | {"A": 7})
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    tokenizer.save_pretrained(tmp_path)
    labels, blank = read_labels(tmp_path)
    assert labels == tokenizer.convert_ids_to_tokens(range(9)) and blank == tokenizer.pad_token_id
    assert labels.index("|") == tokenizer.word_delimiter_token_id


def test_ids_without_a_token_and_another_word_delimiter(tmp_path):
    vocabulary = {"[PAD]": 5, " ": 0, "a": 1, "[UNK]": 4}
    write(tmp_path, vocabulary, 5, tokenizer_config={"word_delimiter_token": {"content": " "}})
    assert read_labels(tmp_path) == (["|", "a", "", "", "[UNK]", "[PAD]"], 5)


def test_mms_has_a_vocabulary_for_each_language(tmp_path):
    write(tmp_path, {"eng": VOCABULARY, "deu": {"<pad>": 0, "|": 1, "ß": 2}})
    assert read_labels(tmp_path, "deu") == (["<pad>", "|", "ß"], 0)
    with pytest.raises(ValueError, match="has the languages deu, eng ... and not 'fra'; name one of them"):
        read_labels(tmp_path, "fra")


@pytest.mark.parametrize("vocabulary", [{}, {"a": "1"}, {"a": -1}, {"a": 1, "b": 1}, {"a": True}, {"a": 10**12}])
def test_what_is_no_vocabulary_is_refused(tmp_path, vocabulary):
    with pytest.raises(ValueError, match="vocab.json is no vocabulary .*; restore the model's own file"):
        read_labels(write(tmp_path, vocabulary))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="vocab.json is not there; give the whole folder"):
        read_labels(tmp_path)
    for blank in (None, 9, "0"):
        with pytest.raises(ValueError, match=r"config.json: pad_token_id, the blank, is .* of 9 labels"):
            read_labels(write(tmp_path, blank=blank))
    (tmp_path / "vocab.json").write_text("[1]")
    with pytest.raises(ValueError, match="vocab.json holds a list"):
        read_labels(tmp_path)
    (tmp_path / "vocab.json").write_bytes(b"\xff{")
    with pytest.raises(ValueError, match="vocab.json is not JSON"):
        read_labels(tmp_path)
