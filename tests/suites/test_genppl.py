"""Perplexity of heard texts against transformers, and quality of folders."""

import argparse
import json
import sys

import numpy as np
import pytest
import soundfile

from jaxslm.suites import quality
from jaxslm.suites.genppl import figures, mean_nll
from jaxslm.tasks.opened_lm import open_lm


def test_a_text_model_weighs_texts_as_transformers_does(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    texts = ["the cat sat", "the the the cat", "a dog"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=60, special_tokens=["<s>", "</s>", "<unk>"])
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(texts, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=made.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=0, eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(config).eval()
    llama.save_pretrained(tmp_path)
    expected = []
    for text in texts:
        ids = torch.tensor([[0, *made.encode(text).ids]])
        with torch.no_grad():
            expected.append(float(llama(input_ids=ids, labels=ids).loss))
    found = mean_nll(open_lm(tmp_path), [*texts, ""])
    np.testing.assert_allclose(found[:3], expected, rtol=2e-4)
    assert found[3] is None and np.std(expected) > 0.01


def test_figures():
    found = figures(["a b a b", ""], [2.0, None])
    assert found == dict(perplexity=pytest.approx(np.exp(2)), auto_bleu_2=1 / 3, words=4, silent=1, clips=2)
    assert figures([""], [None])["perplexity"] is None


def test_quality_of_folders(tmp_path):
    for folder, n in (("ours", 1600), ("theirs", 3200)):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", np.zeros(n), 16_000)
    script = tmp_path / "judge.py"
    script.write_text(
        "import json, sys, soundfile\nfor p in open(sys.argv[1]).read().splitlines():\n"
        "  print(json.dumps(dict(audio_filepath=p, score=soundfile.info(p).duration)))\n"
    )
    parser = argparse.ArgumentParser()
    quality.add_arguments(parser)
    words = [f"--audio={tmp_path / 'ours'}", f"--ceiling={tmp_path / 'theirs'}", f"--out={tmp_path}"]
    said = quality.run(parser.parse_args([*words, f"--judge=length='{sys.executable}' '{script}' {{list}}"]))
    found = json.loads((tmp_path / "quality.json").read_text())
    assert [f["mean"] for f in found["folders"].values()] == [0.1, 0.2] and "length 0.100 of 1 files" in said
    with pytest.raises(ValueError, match="give it a name"):
        quality.run(parser.parse_args([*words, "--judge=x"]))
