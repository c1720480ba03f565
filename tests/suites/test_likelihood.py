"""Likelihood suites of a run from the outside: scores against a plain loop, and what cannot be scored."""

import argparse
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from jaxslm.configure import read_config
from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.scoring import Scorer
from jaxslm.suites import forgetting, likelihood
from jaxslm.tasks.likelihood import make_suite, make_suites
from jaxslm.tasks.opened_lm import open_lm
from jaxslm.tasks.opening import open_language
from jaxslm.tokenizer import load_tokenizer
from jaxslm.training.checkpoint import CheckpointError
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import build_vocabulary
from tests.tiny_run import write_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """What a training run leaves behind, as far as scoring reads it."""
    folder = tmp_path_factory.mktemp("run")
    settings = dict(loss_chunks=2, optimizer=dict(z_loss=0.0), init_from="")
    data = dict(cache=str(folder / "cache"), mixture=dict(text=0.25, speech=0.75))
    write_run(folder, data=data, scale=4, **settings)
    return folder


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Cross-modal StoryCloze of four stories, noise for speech."""
    folder, rng = tmp_path_factory.mktemp("stories"), np.random.default_rng(1)
    for story in range(4):
        for piece in ("mutual", "correct", "incorrect"):
            soundfile.write(folder / f"{story}_{piece}.wav", 0.1 * rng.normal(size=rng.integers(4000, 9000)), 16_000)
            (folder / f"{story}_{piece}.txt").write_text(f"{piece} words of story {story}.\n")
    return folder


def run(module, *arguments) -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite")
    module.add_arguments(parser)
    return module.run(parser.parse_args(list(map(str, arguments))))


def by_loop(opened, ids: list[int], scored: list[bool]) -> float:
    tokens = np.array([ids], np.int32)
    where = dict(positions_BxT=np.arange(len(ids))[None], segment_ids_BxT=np.ones_like(tokens))
    logits_TxV = np.asarray(opened.model.logits(opened.model(tokens, **where)), np.float64)[
        0, :, : opened.vocabulary.size
    ]
    log_p_TxV = logits_TxV - np.logaddexp.reduce(logits_TxV, axis=-1, keepdims=True)
    return sum(log_p_TxV[t - 1, ids[t]] for t in range(1, len(ids)) if scored[t])


def test_story_cloze_in_four_modes(workdir, stories, tmp_path):
    arguments = [f"--workdir={workdir}", f"--path={stories}", "--modes=S,T,S->T,T->S", f"--out={tmp_path}"]
    said = run(likelihood, "--suite=storycloze", *arguments)
    assert "mode=T->S" in said and "at step 3" in said and "</s> is not scored" in said
    rows = [json.loads(line) for line in (tmp_path / "storycloze.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows][:4] == ["0 S", "0 T", "0 S->T", "0 T->S"] and len(rows) == 16
    opened = open_lm(workdir)
    v = opened.vocabulary
    for story, option in ((0, "correct"), (2, "incorrect")):
        text = f"mutual words of story {story}. ".encode()[:-1]
        heard, _ = soundfile.read(stories / f"{story}_{option}.wav", dtype="float32")
        units = opened.inventory.encode(heard).ids + v.block("units").first
        ids = [v.bos_id, v.id("[Text]"), *(b + 3 for b in text), v.id("[Speech]"), *units]
        scored = [False] * 2 + [True] * len(text) + [False] + [True] * len(units)
        row = rows[4 * story + 3]
        found = row["log_likelihood"]["correct incorrect".split().index(option)]
        assert found == pytest.approx(by_loop(opened, ids, scored), rel=1e-4)
        assert row["tokens"]["correct incorrect".split().index(option)] == sum(scored)
    table = json.loads((tmp_path / "storycloze.json").read_text())
    for kind, per in (("sum", lambda r, i: 1), ("mean", lambda r, i: r["tokens"][i])):
        right = [r["log_likelihood"][0] / per(r, 0) > r["log_likelihood"][1] / per(r, 1) for r in rows]
        assert table["accuracy"][kind]["all"]["value"] == pytest.approx(np.mean(right))
    assert "</s> is scored, too" in run(likelihood, "--suite=storycloze", *arguments, "--score_end")
    ended = [json.loads(line) for line in (tmp_path / "storycloze.jsonl").read_text().splitlines()]
    for row, other in zip(rows, ended, strict=True):
        assert other["tokens"] == [n + 1 for n in row["tokens"]]
        assert all(a < b for a, b in zip(other["log_likelihood"], row["log_likelihood"], strict=True))
    with pytest.raises(CheckpointError, match="no checkpoint of step 7; there are 3"):
        run(likelihood, "--suite=storycloze", *arguments, "--step=7")


def test_units_of_sounds_are_kept(workdir, stories, tmp_path, monkeypatch):
    arguments = ["--suite=storycloze", f"--workdir={workdir}", f"--path={stories}", f"--out={tmp_path}"]
    first = run(likelihood, *arguments)
    monkeypatch.setattr(UnitInventory, "encode_batch", lambda *_: pytest.fail("sounds are encoded again"))
    assert run(likelihood, *arguments) == first


def test_a_missing_and_a_broken_sound(workdir, stories, tmp_path):
    copy = shutil.copytree(stories, tmp_path / "stories")
    (copy / "0_correct.wav").unlink()
    (copy / "1_correct.wav").write_bytes(b"RIFF and no more")
    said = run(likelihood, "--suite=storycloze", f"--workdir={workdir}", f"--path={copy}", f"--out={tmp_path}")
    table = json.loads((tmp_path / "storycloze.json").read_text())
    assert table["choices"] == 2 and table["left_out"] == {"choice": 2}  # of which one for its sound
    assert "0_correct.wav" in said and "1_correct.wav" in said


def make(opened, choices, **more):
    how = dict(vocabulary=opened.vocabulary, tokenizer=opened.tokenizer, inventory=opened.inventory)
    return make_suite("mine", choices, **how, cache=None, report=Report(log=False), **more)


def test_units_of_another_inventory_are_refused(workdir):
    opened = open_lm(workdir)
    units = ((Part(units=(1, 2)),), (Part(units=(3,)),))
    with pytest.raises(ValueError, match="suite mine, x: its units are of the inventory abab"):
        make(opened, [Choice("x", units, inventory="ab" * 32)])
    with pytest.raises(ValueError, match="suite mine, x: its units name no inventory"):
        make(opened, [Choice("x", units)])
    assert len(make(opened, [Choice("x", units, inventory=opened.inventory.sha256)]).choices) == 1


@pytest.mark.parametrize("deduplicated", [True, False])
def test_given_units_are_joined_as_those_of_the_run_and_make_none_of_sounds(workdir, tmp_path, deduplicated):
    opened = open_lm(workdir)
    given = UnitInventory("precomputed:given", 0, 50.0, None, 8, deduplicated)
    how = dict(vocabulary=opened.vocabulary, tokenizer=opened.tokenizer, inventory=given, cache=tmp_path)
    choice = Choice(
        "0", ((Part(units=(1, 1, 2)),), (Part(units=(3,)),)), inventory=opened.vocabulary.unit_inventory_sha256
    )
    suite = make_suite("given", [choice], **how, report=Report())
    assert ("not deduplicated" in suite.protocol) != deduplicated
    assert sum(suite.options[0][0].scored) == (2 if deduplicated else 3)
    heard = Choice("1", ((Part(audio=(tmp_path / "a.wav",)),), (Part(audio=(tmp_path / "b.wav",)),)))
    with pytest.raises(ValueError, match="precomputed units come with a run's data"):
        make_suite("heard", [heard], **how, report=Report())


@pytest.mark.parametrize("open_run", [open_lm, open_language])
def test_a_run_whose_units_were_exchanged_is_refused(tmp_path, open_run):
    write_run(tmp_path, samples=dict(text_tokens=9, speech_tokens=9))
    assert open_run(tmp_path).inventory.size == 20
    other = UnitInventory("mfcc", 0, 50.0, np.zeros((20, 39), np.float32), 20)
    shutil.rmtree(tmp_path / "units")
    other.save(tmp_path / "units")
    with pytest.raises(
        ValueError, match=f"units is the unit inventory mfcc.* \\({other.sha256[:12]}.*put the inventory"
    ):
        open_run(tmp_path)


def test_nothing_that_can_be_scored(workdir):
    opened = open_lm(workdir)
    empty = Choice("x", ((Part(units=()),), (Part(units=(3,)),)), inventory=opened.inventory.sha256)
    with pytest.raises(ValueError, match="none of its 1 choices can be scored"):
        make(opened, [empty])


def test_units_for_a_model_of_text_alone_are_refused(tmp_path):
    vocabulary = build_vocabulary(load_tokenizer("byte"), 0, "", markers=(), tasks=())
    how = dict(vocabulary=vocabulary, tokenizer=load_tokenizer("byte"), inventory=None, cache=tmp_path)
    units = Choice("7", ((Part(units=(1,)),), (Part(units=(2,)),)))
    with pytest.raises(ValueError, match="mine, 7: it has units, .* model of text alone: name the run"):
        make_suite("mine", [units], **how, report=Report())


def test_nats_of_two_tokenizers_are_not_subtracted():
    figures = {
        when: dict(model=when, nats_per_token=nats, bits_per_byte=1.0)
        for when, nats in dict(before=2.0, after=5.0).items()
    }
    assert "+3.0000" in forgetting.table(figures, True)
    assert "+3.0000" not in forgetting.table(figures, False) and "+0.0000" in forgetting.table(figures, False)


def test_forgetting_of_a_model_and_itself_is_nothing(workdir, tmp_path):
    (tmp_path / "text.txt").write_text(
        "A line of text.\nAnother one, which is a little longer than the context " + "a" * 90
    )
    question = dict(question="Which?", choices=["this", "that one, I think"], answer="this")
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\nnothing\n")
    arguments = [f"--text={tmp_path / 'text.txt'}", f"--choices={tmp_path / 'questions.jsonl'}", f"--out={tmp_path}"]
    said = run(forgetting, f"--workdir={workdir}", f"--base={workdir}", *arguments)
    assert "mixture of the run: speech 0.75, text 0.25" in said and "choices before and after: sum and mean" in said
    found = json.loads((tmp_path / "forgetting.json").read_text())
    assert found["before"] == found["after"] and found["after"]["documents"] == 2
    opened = open_lm(workdir)
    ids = [opened.vocabulary.bos_id, opened.vocabulary.id("[Text]")]
    texts = (tmp_path / "text.txt").read_text().split("\n")
    pieces = [texts[0], texts[1][:63], texts[1][63:126], texts[1][126:]]  # 65 ids fill a row of 64 places
    sums = [by_loop(opened, [*ids, *(b + 3 for b in p.encode())], [False] * 2 + [True] * len(p)) for p in pieces if p]
    assert found["after"]["tokens"] == sum(map(len, texts))
    assert found["after"]["nats_per_token"] == pytest.approx(-sum(sums) / sum(map(len, texts)), rel=1e-4)
    assert found["after"]["bits_per_byte"] == pytest.approx(found["after"]["nats_per_token"] / np.log(2), rel=1e-4)
    given = [b + 3 for b in b"Question: Which?\nAnswer:"]
    answers = [[b + 3 for b in f" {option}".encode()] for option in question["choices"]]
    before = [False] * len([*ids, *given])
    sums = [by_loop(opened, [*ids, *given, *a], [*before, *([True] * len(a))]) for a in answers]
    means = [each / len(a) for each, a in zip(sums, answers, strict=True)]
    after = found["after"]
    assert after["accuracy_sum"] == float(sums[0] > sums[1]) and after["accuracy_mean"] == float(means[0] > means[1])
    assert after["chance"] == 0.5
    assert (after["choices"], after["choices_left_out"], after["choices_not_a_number"]) == (1, 1, 0)
    assert found["same_tokenizer"] and found["training"] == dict(mixture=dict(text=0.25, speech=0.75))


def test_questions_without_a_score_are_counted_in_the_forgetting_meter(workdir, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("A line of text.\n")
    lines = (json.dumps(dict(question=f"Which {n}?", choices=["this", "that"], answer=0)) + "\n" for n in range(3))
    (tmp_path / "questions.jsonl").write_text("".join(lines))
    whole = Scorer.__call__

    def lost(self, *given, progress=""):
        found = whole(self, *given, progress=progress)
        if progress == "choices":
            found[[0, 3]] = np.nan
        return found

    monkeypatch.setattr(Scorer, "__call__", lost)
    arguments = [f"--text={tmp_path / 'text.txt'}", f"--choices={tmp_path / 'questions.jsonl'}", f"--out={tmp_path}"]
    said = run(forgetting, f"--workdir={workdir}", f"--base={workdir}", *arguments)
    after = json.loads((tmp_path / "forgetting.json").read_text())["after"]
    assert (after["choices"], after["choices_not_a_number"], after["not_a_number"]) == (3, 2, 0)
    assert "choices_not_a_number" in said and after["accuracy_sum"] in (0.0, 1.0)  # of the one that is left


def test_models_of_different_contexts_are_compared_on_the_same_pieces(workdir, tmp_path):
    """Weights that are the same have forgotten nothing, however long their rows."""
    longer = tmp_path / "longer"
    write_run(longer, data=dict(cache=str(tmp_path)), scale=4, loss_chunks=2, optimizer=dict(z_loss=0.0))
    config = json.loads((longer / "config.json").read_text())
    config["data"]["context_length"] = 256
    (longer / "config.json").write_text(json.dumps(config))
    (tmp_path / "text.txt").write_text("A line of text. " * 20)
    said = run(forgetting, f"--workdir={workdir}", f"--base={longer}", f"--text={tmp_path / 'text.txt'}")
    found = json.loads((workdir / "evaluations" / "forgetting.json").read_text())
    assert found["before"]["nats_per_token"] == pytest.approx(found["after"]["nats_per_token"], rel=1e-5)
    assert "at most 63 tokens" in said and found["ceiling"] == "before"


def test_a_run_without_a_base_asks_for_one(workdir, tmp_path):
    (tmp_path / "text.txt").write_text("A line.")
    with pytest.raises(ValueError, match="was not begun from another model .* name one by --base"):
        run(forgetting, f"--workdir={workdir}", f"--text={tmp_path / 'text.txt'}")


def test_scores_that_are_no_number_are_counted_and_said(workdir, tmp_path, monkeypatch):
    """Of sWUGGY, whose own files of scores cannot have them."""
    split = tmp_path / "lexical" / "dev"
    split.mkdir(parents=True)
    rng, rows = np.random.default_rng(2), ["id,filename,voice,frequency,word,phones,length,correct"]
    for pair in range(2):
        for correct in (1, 0):
            soundfile.write(split / f"w{pair}{correct}.wav", 0.1 * rng.normal(size=5000), 16_000)
            rows.append(f"{pair},w{pair}{correct},A,7,word,W ER D,3,{correct}")
    (split / "gold.csv").write_text("\n".join(rows) + "\n")
    arguments = ["--suite=swuggy", f"--workdir={workdir}", f"--path={tmp_path}", f"--out={tmp_path / 'out'}"]
    said = run(likelihood, *arguments)
    lines = (tmp_path / "out" / "lexical" / "dev.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == ["w00", "w01", "w10", "w11"]
    assert "by mean" in said and "dev.txt, 4 recordings" in said and "zrc wants" not in said
    written = {name: float(score) for name, score in map(str.split, lines)}
    for row in map(json.loads, (tmp_path / "out" / "swuggy.jsonl").read_text().splitlines()):
        for correct, total, n in zip((1, 0), row["log_likelihood"], row["tokens"], strict=True):
            assert written[f"w{row['id'][0]}{correct}"] == pytest.approx(total / n)
    said = run(likelihood, *arguments, "--limit=1")
    assert "dev.txt, 2 recordings; zrc wants one of every recording" in said
    whole = Scorer.__call__

    def one_lost(self, *given, **more):
        found = whole(self, *given, **more)
        found[0] = np.nan
        return found

    monkeypatch.setattr(Scorer, "__call__", one_lost)
    said = run(likelihood, *arguments)
    table = json.loads((tmp_path / "out" / "swuggy.json").read_text())
    assert table["accuracy"]["sum"]["all"]["not_a_number"] == 1 and table["accuracy"]["sum"]["all"]["items"] == 1
    assert "1 of 2 have a score that is no number" in said and "no file of scores for zrc" in said
    assert not (tmp_path / "out" / "lexical" / "dev.txt").exists()


def test_options_longer_than_rows_of_training_are_counted(workdir, tmp_path):
    lines = [dict(options=["short", "a" * 200], answer=0), dict(options=["x", "y"], answer=0)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = run(
        likelihood, "--suite=jsonl", f"--workdir={workdir}", f"--path={tmp_path / 'q.jsonl'}", f"--out={tmp_path}"
    )
    assert "1 options are longer than the 64 tokens of a row in training" in said
    assert json.loads((tmp_path / "jsonl.json").read_text())["longer_than_context"] == 1


def test_suites_in_training_are_those_of_the_run_that_is_done(workdir, stories, tmp_path):
    opened = open_lm(workdir)
    corpus = SimpleNamespace(
        prepared=SimpleNamespace(inventory=opened.inventory), vocabulary=opened.vocabulary, tokenizer=opened.tokenizer
    )
    config = read_config(workdir).to_dict()
    config["data"]["batch_size"] = 4
    spec = dict(kind="storycloze", path=str(stories), modes=("S", "T->S"), limit=6)
    config["eval"] = dict(suites=dict(cloze=spec))
    found = make_suites(config, corpus, opened.partitioner)(opened.model)
    arguments = [f"--workdir={workdir}", f"--path={stories}", "--modes=S,T->S", "--limit=6", f"--out={tmp_path}"]
    run(likelihood, "--suite=storycloze", *arguments)
    table = json.loads((tmp_path / "storycloze.json").read_text())["accuracy"]
    expected = {
        f"suite/cloze/{group}/{kind}": each["value"] for kind, groups in table.items() for group, each in groups.items()
    }
    counts = dict(chance=0.5, choices=6.0, not_a_number=0.0, left_out=0.0)
    assert found == expected | {f"suite/cloze/{name}": value for name, value in counts.items()}
    assert len(expected) == 6
    config["eval"] = dict(suites=dict())
    assert make_suites(config, corpus, opened.partitioner)(opened.model) == {}


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="neither the workdir of a language model's run nor a Hugging Face folder"):
        open_lm(tmp_path)
