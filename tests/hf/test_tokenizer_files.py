"""The tokenizer of an exported folder against transformers: the trainer's ids must come out of AutoTokenizer."""

import importlib.util
import json
import random
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxslm.hf.tokenizer_files import PROBES, read_as_qwen2, write_tokenizer
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import build_vocabulary
from tests.hf.families import write_qwen2_tokenizer

transformers = pytest.importorskip("transformers")

SENTENCES = [
    "the cat sat on the mat and looked at the river",
    "naïve people walk to the old market in 東京",
    "it's a well-known fact, isn't it? yes: 42 times! aaaa 0000  1111",
]
TEXTS = [
    *PROBES,
    *SENTENCES,
    "   ",
    "\n",
    "\t",
    "▁literal▁ <0x0A>",
    "e\u0301 Å ½",
    "x" * 500,
    "the river " * 300,
]


def vocabulary_of(tokenizer, n_units=20):
    return build_vocabulary(tokenizer, n_units, "0" * 64)


def export(folder, tokenizer, source, *, model_type="llama", n_units=20):
    """(AutoTokenizer of the written folder, vocabulary), with a config.json beside it as in an export."""
    vocabulary = vocabulary_of(tokenizer, n_units)
    write_tokenizer(folder, tokenizer, vocabulary, source=source)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return transformers.AutoTokenizer.from_pretrained(folder), vocabulary


def check(theirs, tokenizer, vocabulary, texts=TEXTS):
    """Every added token both ways, the text alone and behind a marker, begin and end, lengths."""
    assert len(theirs) == vocabulary.size
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    for token_id in range(vocabulary.text_size, vocabulary.size):
        token = vocabulary.token(token_id)
        assert theirs.encode(token, add_special_tokens=False) == [token_id]
        assert theirs.decode([token_id], skip_special_tokens=True) == token
    for text in texts:
        ids = tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids, text
        marked = [vocabulary.id("[Text]"), *ids]
        assert theirs.encode("[Text]" + text, add_special_tokens=False) == marked, text
        if "▁" not in text:  # SentencePiece drops any number of these at the beginning, tokenizers one
            assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    names = ["[Speech]", "[Hu3]", "[Hu17]", "[ASR]"] if tokenizer.has_text else ["[Hu3]", "[Hu17]"]
    assert theirs.encode("".join(names), add_special_tokens=False) == [vocabulary.id(name) for name in names]


def check_prompt(theirs, tokenizer, vocabulary):
    """What the trainer's prompts begin with comes by default, alone and in a batch with padding on the left."""
    short, long = "[Hu3]", "[Hu3][Hu4][Hu5]"
    units = [vocabulary.id(f"[Hu{i}]") for i in (3, 4, 5)]
    assert theirs(short)["input_ids"] == [tokenizer.bos_id, units[0]]
    batch = theirs([short, long], padding=True)
    assert batch["input_ids"] == [[theirs.pad_token_id] * 2 + [tokenizer.bos_id, units[0]], [tokenizer.bos_id, *units]]
    assert set(batch) == {"input_ids", "attention_mask"}


def train_sentencepiece(folder, **options):
    import sentencepiece

    options = {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_prefix=str(folder / "tokenizer"), hard_vocab_limit=False,
        minloglevel=2, **options,
    )  # fmt: skip
    return folder / "tokenizer.model"


def train_byte_level(*, add_prefix_space=False, special=("<|begin|>", "<|end|>")):
    """As Llama-3's and GPT-2's: control tokens behind the model's own vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def train_metaspace(pre_tokenizer=None):
    """As Llama-2's converted file; with a pre-tokenizer, as transformers writes it now."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=list("▁▁abcdefghijklmnopqrstuvwxyz"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    content["model"]["vocab"] = vocab | {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Sequence([])
    if pre_tokenizer is None:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def save(folder, tokenizer, **settings):
    """The path of tokenizer.json in a folder of its own, with `settings` as its tokenizer_config.json."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder / "tokenizer.json"


def begin(token, token_id):
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, token_id)])


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma", "mistral"])
def test_bytes(tmp_path, model_type):
    tokenizer = load_tokenizer("byte")
    theirs, vocabulary = export(tmp_path, tokenizer, None, model_type=model_type)
    check(theirs, tokenizer, vocabulary)
    check_prompt(theirs, tokenizer, vocabulary)
    assert theirs.encode("Aé") == [1, 68, 0xC3 + 3, 0xA9 + 3] and theirs.pad_token_id == 0


def test_no_text(tmp_path):
    tokenizer = load_tokenizer("none")
    theirs, vocabulary = export(tmp_path, tokenizer, None)
    check(theirs, tokenizer, vocabulary, texts=[])
    check_prompt(theirs, tokenizer, vocabulary)
    assert theirs.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<s>", "</s>"] and theirs.pad_token_id == 0
    assert vocabulary.id("[Hu0]") == 3 and theirs.decode([3, 4]) == "[Hu0][Hu1]"


@pytest.mark.parametrize(
    "options",
    [
        {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},  # Llama's
        {"normalization_rule_name": "identity"},
        {"normalization_rule_name": "identity", "add_dummy_prefix": False, "pad_id": 3},
        {"normalization_rule_name": "nmt_nfkc"},
        {"normalization_rule_name": "identity", "byte_fallback": False, "character_coverage": 1.0},
    ],
    ids=["llama", "spaces", "no_prefix", "nfkc", "no_bytes"],
)
def test_sentencepiece(tmp_path, options):
    path = train_sentencepiece(tmp_path, **options)
    tokenizer = load_tokenizer(str(path))
    out = tmp_path / "out"
    out.mkdir()
    theirs, vocabulary = export(out, tokenizer, path)
    unknown = lambda text: tokenizer.encode(text).count(0) > 0  # noqa: E731
    check(theirs, tokenizer, vocabulary, texts=[text for text in TEXTS if not unknown(text)])
    check_prompt(theirs, tokenizer, vocabulary)
    for text in filter(unknown, TEXTS):  # those decode otherwise: "<unk>" for " ⁇ "
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert theirs.unk_token == "<unk>" and theirs.pad_token_id == (3 if "pad_id" in options else 2)


def test_sentencepiece_random_texts(tmp_path):
    path = train_sentencepiece(tmp_path, normalization_rule_name="identity", remove_extra_whitespaces=False)
    tokenizer = load_tokenizer(str(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    theirs, _ = export(out, tokenizer, path.parent)
    rng = random.Random(0)
    for _ in range(1000):
        text = "".join(rng.choice("  aab01the\n.é東😀") for _ in range(rng.randrange(40)))
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text), text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "unigram", "byte_fallback": False, "vocab_size": 60}, "no BPE model"),
        ({"user_defined_symbols": ["[laugh]"]}, "user-defined"),
        ({"treat_whitespace_as_suffix": True}, "end of words"),
    ],
)
def test_sentencepiece_refused(tmp_path, options, reason):
    path = train_sentencepiece(tmp_path, **options)
    tokenizer = load_tokenizer(str(path))
    with pytest.raises(ValueError, match=f"tokenizer.model.*{reason}.*data.tokenizer"):
        write_tokenizer(tmp_path, tokenizer, vocabulary_of(tokenizer), source=path)
    assert not (tmp_path / "tokenizer.json").exists()


def test_llama_2_shape(tmp_path):
    """A real SentencePiece model of 32,000 pieces; the ids are SpiRit-LM's."""
    found = importlib.util.find_spec("mistral_common")
    if found is None:
        pytest.skip("no Llama-2-shaped model here: pip install --no-deps mistral-common==1.13.1")
    path = Path(found.submodule_search_locations[0]) / "data" / "tokenizer.model.v1"
    tokenizer = load_tokenizer(str(path))
    theirs, vocabulary = export(tmp_path, tokenizer, path, n_units=501)
    check(theirs, tokenizer, vocabulary)
    check_prompt(theirs, tokenizer, vocabulary)
    golden = {"[Text]": 32000, "[Speech]": 32001, "[Hu0]": 32002, "[Hu500]": 32502, "[ASR]": 32503, "[TTS]": 32504}
    assert {name: theirs.convert_tokens_to_ids(name) for name in golden} == golden
    assert theirs.encode("[Speech][Hu3][Hu17][ASR]") == [1, 32001, 32005, 32019, 32503]
    pieces = [theirs.decode([i]) for i in range(3, 32000, 7)]
    for text in pieces:
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text), text


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_byte_level_json(tmp_path, add_prefix_space):
    made = train_byte_level(add_prefix_space=add_prefix_space)
    made.post_processor = begin("<|begin|>", made.token_to_id("<|begin|>"))
    made.enable_truncation(4)
    made.enable_padding(length=8)
    template = "{{ messages[0]['content'] }}"
    names = {"bos_token": "<|begin|>", "eos_token": {"__type": "AddedToken", "content": "<|end|>"}}
    path = save(tmp_path / "in", made, **names, model_max_length=4096, chat_template=template, add_bos_token=True)
    tokenizer = load_tokenizer(str(path.parent))
    theirs, vocabulary = export(tmp_path, tokenizer, path.parent)
    check(theirs, tokenizer, vocabulary)
    check_prompt(theirs, tokenizer, vocabulary)
    assert theirs.pad_token == "<|end|>" and theirs.unk_token is None and theirs.model_max_length == 4096
    said = [{"role": "user", "content": "hello"}]
    assert theirs.apply_chat_template(said, tokenize=False) == "hello"
    assert not (tmp_path / "chat_template.jinja").exists()


def test_chat_template_file(tmp_path):
    path = save(tmp_path / "in", train_byte_level(), bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|begin|>")
    path.with_name("chat_template.jinja").write_text("of the file: {{ messages[0]['content'] }}")
    theirs, _ = export(tmp_path, load_tokenizer(str(path)), path)
    assert theirs.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "of the file: x"
    assert (tmp_path / "chat_template.jinja").exists() and theirs.pad_token == "<|begin|>"
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["chat_template"].startswith("of the file") and settings["add_bos_token"] is False
    assert theirs.encode("[Hu3]") == [theirs.convert_tokens_to_ids("[Hu3]")]  # the source puts nothing in front


@pytest.mark.parametrize("scheme", ["", "always", "first", "never"])
def test_metaspace_json(tmp_path, scheme):
    """A text behind a marker is no "first" text to tokenizers, but to the trainer it is."""
    made = train_metaspace(pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False) if scheme else None)
    made.post_processor = begin("<s>", 1)
    path = save(tmp_path / "in", made, tokenizer_class="LlamaTokenizer", legacy=False, unk_token="<unk>")
    tokenizer = load_tokenizer(str(path))
    theirs, vocabulary = export(tmp_path, tokenizer, path)
    check(theirs, tokenizer, vocabulary)
    check_prompt(theirs, tokenizer, vocabulary)
    assert theirs.unk_token_id == 0 and theirs.pad_token == "</s>"


def test_qwen2_keeps_its_own_tokenizer(tmp_path):
    """transformers 5 builds its Qwen2Tokenizer for this model type, whatever lies there."""
    write_qwen2_tokenizer(tmp_path / "in", SENTENCES)
    path = tmp_path / "in" / "tokenizer.json"
    tokenizer = load_tokenizer(str(path))
    theirs, vocabulary = export(tmp_path, tokenizer, path, model_type="qwen2")
    assert read_as_qwen2(tmp_path) and type(theirs).__name__.startswith("Qwen2Tokenizer")
    check(theirs, tokenizer, vocabulary)
    assert theirs.pad_token == "<|endoftext|>" and theirs.eos_token == "<|im_end|>"


def other_words(content):
    content["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


NOT_QWEN2 = {
    "words": other_words,
    "digits": lambda content: content["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\p{N}{1,3}|\s+"),
    "prefix": lambda content: content["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
    "normalizer": lambda content: content.update(normalizer={"type": "NFKC"}),
    "unknown": lambda content: [token.update(content="<|end|>") for token in content["added_tokens"][:1]],
    "merges": lambda content: content["model"].update(ignore_merges=True),
}


@pytest.mark.parametrize("change", NOT_QWEN2)
def test_qwen2_with_another_tokenizer(tmp_path, change):
    """Told apart from Qwen's own, because as qwen2 they would give other ids; as llama they give theirs."""
    write_qwen2_tokenizer(tmp_path / "in", SENTENCES)
    path = tmp_path / "in" / "tokenizer.json"
    content = json.loads(path.read_text())
    NOT_QWEN2[change](content)
    if change == "unknown":
        content["model"]["vocab"]["<|end|>"] = content["model"]["vocab"].pop("<|endoftext|>")
    if change == "merges":  # a piece that no merge makes
        content["model"]["vocab"]["market"] = 403
    path.write_text(json.dumps(content))
    path.with_name("tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    )
    tokenizer = load_tokenizer(str(path))
    theirs, vocabulary = export(tmp_path, tokenizer, path)
    check(theirs, tokenizer, vocabulary)
    assert not read_as_qwen2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    as_qwen2 = transformers.AutoTokenizer.from_pretrained(tmp_path)
    same = [
        as_qwen2.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        for text in (*TEXTS, "12345", "market")
    ]
    assert not all(same) or len(as_qwen2) != vocabulary.size


@pytest.mark.parametrize("gaps", [{300: 5}, {300: 5, 320: 7}, {0: 2}])
def test_gaps(tmp_path, gaps):
    """Ids that no token has: tokenizers would give them to the added tokens."""
    made = train_byte_level()
    content = json.loads(made.to_str())
    vocab = content["model"]["vocab"] | {"<|begin|>": 1000, "<|end|>": 1010}  # with a gap before each
    moved = {token: i + sum(by for start, by in gaps.items() if i >= start) for token, i in vocab.items()}
    content["model"]["vocab"] = moved
    path = save(tmp_path / "in", made, bos_token="<|begin|>", eos_token="<|end|>")
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(str(path))
    theirs, vocabulary = export(tmp_path, tokenizer, path)
    assert vocabulary.text_size == tokenizer.size == moved["<|end|>"] + 1
    check(theirs, tokenizer, vocabulary)
    for token_id in set(range(tokenizer.size)) - set(moved.values()):
        assert theirs.convert_ids_to_tokens(token_id) == f"<unused {token_id}>"


def test_control_token_that_falls_upon_another_id(tmp_path):
    """What tokenizers does by itself with gaps: no trainer can tell the begin from a piece."""
    made = train_byte_level()
    content = json.loads(made.to_str())
    content["model"]["vocab"] = {token: i + 5 * (i >= 300) for token, i in content["model"]["vocab"].items()}
    path = save(tmp_path / "in", made, bos_token="<|begin|>", eos_token="<|end|>")
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(str(path))
    with pytest.raises(ValueError, match="tokenizer.json: .*both read as id .*have gaps"):
        write_tokenizer(tmp_path, tokenizer, vocabulary_of(tokenizer), source=path)


def test_source_must_be_the_one_that_was_loaded(tmp_path):
    path = save(tmp_path / "in", train_byte_level(), bos_token="<|begin|>", eos_token="<|end|>")
    tokenizer = load_tokenizer(str(path))
    vocabulary = vocabulary_of(tokenizer)
    with pytest.raises(ValueError, match="give that file or its folder as the source"):
        write_tokenizer(tmp_path, tokenizer, vocabulary, source=None)
    shutil.copyfile(path, tmp_path / "kept")
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match="tokenizer.json is not the tokenizer that was loaded"):
        write_tokenizer(tmp_path, tokenizer, vocabulary, source=path)
    path.unlink()
    with pytest.raises(ValueError, match="tokenizer.json: the tokenizer of this run is not there"):
        write_tokenizer(tmp_path, tokenizer, vocabulary, source=path.parent)


def test_token_of_the_source_is_not_added_again(tmp_path):
    made = train_byte_level(special=("<|begin|>", "<|end|>", "[Speech]"))
    path = save(tmp_path / "in", made, bos_token="<|begin|>", eos_token="<|end|>")
    tokenizer = load_tokenizer(str(path))
    with pytest.raises(ValueError, match=r"tokenizer.json: has '\[Speech\]' of its own"):
        write_tokenizer(tmp_path, tokenizer, vocabulary_of(tokenizer), source=path)


def test_texts_that_would_be_read_otherwise_are_refused(tmp_path):
    made = train_byte_level(special=("<|begin|>", "<|end|>", "[Text]h"))
    path = save(tmp_path / "in", made, bos_token="<|begin|>", eos_token="<|end|>")
    tokenizer = load_tokenizer(str(path))
    with pytest.raises(ValueError, match=r"tokenizer.json: .*it reads '\[Text\]hello' as"):
        write_tokenizer(tmp_path, tokenizer, vocabulary_of(tokenizer), source=path)
    assert not (tmp_path / "tokenizer.json").exists()
