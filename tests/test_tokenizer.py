"""Tokenizers against the libraries' own whole-text encodings; the models are trained here, on a few sentences."""

import json

import pytest

from jaxslm.tokenizer import load_tokenizer

SENTENCES = [
    "the cat sat on the mat and looked at the river",
    "naïve people walk to the old market in 東京",
    "it's a well-known fact, isn't it? yes: 42 times!",
]


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    import sentencepiece

    prefix = tmp_path_factory.mktemp("sp") / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_prefix=str(prefix), vocab_size=400, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


@pytest.fixture(scope="module", params=["bytelevel", "metaspace"])
def tokenizer_json(request, tmp_path_factory):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=request.param == "metaspace"))
    if request.param == "bytelevel":  # GPT-2 and Llama-3
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:  # Llama-2; its merges never cross words
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    if request.param == "metaspace":  # as Llama-2's file has it: a normalizer writes the spaces, nothing cuts at them
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def check_words(tokenizer):
    for sentence in SENTENCES:
        words = sentence.split()
        by_word = tokenizer.encode_words(words)
        assert len(by_word) == len(words)
        assert [i for ids in by_word for i in ids] == tokenizer.encode(sentence)
        assert all(by_word)
        assert tokenizer.decode(tokenizer.encode(sentence)) == sentence
        for word, ids in zip(words[1:], by_word[1:], strict=True):  # each word carries its own leading space
            assert tokenizer.decode(ids).strip() == word
    assert tokenizer.encode_words([]) == []


def test_bytes():
    tokenizer = load_tokenizer("byte")
    check_words(tokenizer)
    assert tokenizer.encode("Aé") == [68, 0xC3 + 3, 0xA9 + 3]
    assert tokenizer.decode([1, 68, 2, 700]) == "A"


def test_none():
    tokenizer = load_tokenizer("none")
    assert (tokenizer.size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.special_ids) == (3, 1, 2, (0, 1, 2))
    assert (
        tokenizer.sha256 == "8e38172c7bd4dd7b6e13333dd607066843dcc94e9815800a6decb478432520cf"
    )  # the same in every run
    assert not tokenizer.has_text and load_tokenizer("byte").has_text
    assert tokenizer.decode([0, 1, 2, 70]) == "" and tokenizer.encode_words([]) == []
    for call in (lambda: tokenizer.encode("a"), lambda: tokenizer.encode_words(["a"])):
        with pytest.raises(ValueError, match="set data.tokenizer"):
            call()


def test_sentencepiece(sentencepiece_model):
    tokenizer = load_tokenizer(str(sentencepiece_model))
    check_words(tokenizer)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2) and set(tokenizer.special_ids) == {0, 1, 2}


def test_tokenizer_json(tokenizer_json):
    tokenizer = load_tokenizer(str(tokenizer_json.parent))
    check_words(tokenizer)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


def test_text_never_becomes_a_control_token(sentencepiece_model, tokenizer_json):
    for name in ("byte", str(sentencepiece_model), str(tokenizer_json)):
        tokenizer = load_tokenizer(name)
        assert tokenizer.eos_id not in tokenizer.encode("the end </s> <s> of it")


def test_named_end_token(tokenizer_json, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json.read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<unk>"}}))
    assert load_tokenizer(str(path)).eos_id == 0
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<missing>"}))
    with pytest.raises(ValueError, match="tokenizer.json.*<missing>.*bos_token, eos_token"):
        load_tokenizer(str(path))


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_tokenizer(str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="neither tokenizer.json nor tokenizer.model"):
        load_tokenizer(str(tmp_path))
    for name in ("tokenizer.json", "tokenizer.model"):
        (tmp_path / name).write_text("{ not one }")
        with pytest.raises(ValueError, match=f"{name} is no tokenizer.json and no SentencePiece model"):
            load_tokenizer(str(tmp_path / name))
