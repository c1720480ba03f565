"""Perplexity of heard texts against transformers, and quality of folders."""

import argparse
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import encode_flac
from jaxslm.data.records import Utterance, write_records
from jaxslm.generation.chain import Chain
from jaxslm.suites import genppl, quality
from jaxslm.suites.genppl import figures, mean_nll
from jaxslm.tasks.opened_lm import open_lm
from jaxslm.units.units import UnitSequence
from tests.suites.toys import INVENTORY, Beeps, flags_of, tiny_language

TEXTS = ["the cat sat", "the the the cat", "a dog"]


@pytest.fixture(scope="module")
def judge_lm(tmp_path_factory):
    """(folder, mean nats a token that transformers gives the TEXTS)."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizers, folder = pytest.importorskip("tokenizers"), tmp_path_factory.mktemp("llama")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=60, special_tokens=["<s>", "</s>", "<unk>"])
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(TEXTS, trainer)
    made.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=made.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=0, eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(config).eval()
    llama.save_pretrained(folder)
    expected = []
    for text in TEXTS:
        ids = torch.tensor([[0, *made.encode(text).ids]])
        with torch.no_grad():
            expected.append(float(llama(input_ids=ids, labels=ids).loss))
    return folder, expected


def test_a_text_model_weighs_texts_as_transformers_does(judge_lm):
    folder, expected = judge_lm
    found = mean_nll(open_lm(folder), [*TEXTS, ""])
    np.testing.assert_allclose(found[:3], expected, rtol=2e-4)
    assert found[3] is None and np.std(expected) > 0.01


@pytest.fixture
def records(tmp_path):
    """Clips of 1, 4 and 5 s with ten units a second; the last begins with a unit of 4 s."""
    made = []
    for i, seconds in enumerate((1, 4, 5)):
        durations = np.full(10 * seconds, 5, np.int32) if i < 2 else np.array([200, 50], np.int32)
        units = UnitSequence(np.arange(len(durations), dtype=np.int32) % 20, durations, 50.0)
        audio = encode_flac(np.full(16_000 * seconds, 0.1, np.float32), 16_000)
        more = dict(audio=audio, duration=float(seconds), units={INVENTORY.sha256: units}, split="heldout")
        made.append(Utterance(f"s/{i}", "words", **more))
    write_records(tmp_path / "records", made, inventories=[INVENTORY])
    return tmp_path / "records"


def test_continuations_are_heard_and_weighed_beside_recordings(judge_lm, records, tmp_path, monkeypatch):
    folder, expected = judge_lm
    asked, given = [], []

    def answer(model, vocabulary, tokenizer, prompts, *, to, sampling, key):
        asked.extend(prompts)
        assert (to, sampling.temperature, sampling.top_k, sampling.top_p) == ("speech", 0.8, 25, 1.0)
        return [SimpleNamespace(units=units) for units in replies]

    class Clones(Beeps):
        clones = True

        def prompt(self, clip, where, *, from_end=False):
            given.append((clip.duration, from_end))
            return where

    chain = Chain(tiny_language(), voice := Clones())
    monkeypatch.setattr(genppl, "open_named", lambda *_, **__: chain)
    monkeypatch.setattr(genppl, "complete", answer)
    hear = 'import sys; print("the cat sat" if "/recordings/" in sys.argv[1] else "a dog")'
    judge = f"'{sys.executable}' -c '{hear}' {{wav}}"
    words = ["--workdir=w", f"--records={records}", f"--out={tmp_path}", f"--judge_lm={folder}", f"--asr={judge}"]
    replies = [(3, 4)]
    said = genppl.run(flags_of(genppl, *words))
    found = json.loads((tmp_path / "genppl.json").read_text())
    assert len(asked) == 1 and len(asked[0]) == 2 + 30  # <s>[Speech] and the units of 3 s; the others are too short
    assert given == [(3.0, True)] and voice.prompts == ["s/1"]
    assert found["continued"]["perplexity"] == pytest.approx(np.exp(expected[2]), rel=1e-3)
    assert found["recordings"]["perplexity"] == pytest.approx(np.exp(expected[0]), rel=1e-3)
    assert soundfile.info(tmp_path / "genppl" / "recordings" / "0000.wav").duration == 1.0
    assert found["normalizer"] == "none" and found["ceiling"] == "recordings" and "recordings" in said
    assert found["judge"] == dict(asr=judge, lm=str(folder))
    replies = [()]
    genppl.run(flags_of(genppl, *words))
    found = json.loads((tmp_path / "genppl.json").read_text())
    assert found["continued"] == dict(perplexity=None, auto_bleu_2=None, words=0, silent=1, not_a_number=0, clips=1)
    with pytest.raises(ValueError, match="no clip is longer than --seconds=30"):
        genppl.run(flags_of(genppl, *words, "--seconds=30"))


def test_figures():
    found = figures(["a b a b", ""], [2.0, None])  # of the clip that was heard, 2 of 3 pairs of words come again
    counts = dict(words=4, silent=1, not_a_number=0, clips=2)
    assert found == dict(perplexity=pytest.approx(np.exp(2)), auto_bleu_2=2 / 3, **counts)
    assert figures([""], [None])["perplexity"] is None and figures([""], [None])["auto_bleu_2"] is None


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
    assert found["ceiling"] == str(tmp_path / "theirs") and found["normalizer"] is None
    with pytest.raises(ValueError, match="give it a name"):
        quality.run(parser.parse_args([*words, "--judge=x"]))


def test_a_score_that_is_no_number_is_not_silence():
    found = figures(["words heard", "more", ""], [None, 2.0, None])
    assert (found["silent"], found["not_a_number"], found["words"], found["clips"]) == (1, 1, 3, 3)
    assert found["perplexity"] == pytest.approx(np.exp(2.0))
    assert figures(["x"], [800.0])["perplexity"] == np.inf
