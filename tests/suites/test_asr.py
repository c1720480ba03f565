"""Transcripts and spoken texts of a run, by toy models: what is asked of them, and what the tables say."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxslm.audio.io import encode_flac
from jaxslm.data.records import Utterance, write_records
from jaxslm.generation.chain import Chain
from jaxslm.suites import asr, tts
from jaxslm.units.units import UnitSequence
from tests.suites.toys import INVENTORY, VOCABULARY, Beeps, flags_of, tiny_language

pytest.importorskip("jiwer", reason="pip install 'jaxslm[evaluate]'")
pytest.importorskip("whisper_normalizer", reason="pip install 'jaxslm[evaluate]'")
TEXTS = ["a blue", "cat", "...", "[noise]", "runs to school"]


@pytest.fixture(scope="module")
def language():
    return tiny_language()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("records") / "made", np.random.default_rng(1)
    made = []
    for i, text in enumerate(TEXTS):
        audio = encode_flac(0.1 * rng.normal(size=8000).astype(np.float32), 16_000)
        units = UnitSequence(np.arange(5, dtype=np.int32) + i, np.full(5, 10, np.int32), 50.0)
        more = dict(audio=audio, duration=0.5, units={INVENTORY.sha256: units}, split="heldout" if i else "train")
        made.append(Utterance(f"s/{i}", text, **more))
    write_records(folder, made, inventories=[INVENTORY])
    return folder


def test_prompts_and_words(language, records, tmp_path, monkeypatch):
    asked = []

    def complete(model, vocabulary, tokenizer, prompts, *, to, sampling, key):
        asked.extend(prompts)
        assert to == "text" and sampling.temperature == 0 and sampling.max_new_tokens == 9
        said = ("Cat!", "noise", "runs school now")
        return [SimpleNamespace(text=text, stopped=text != "noise") for text in said]

    monkeypatch.setattr(asr, "open_language", lambda *_: language)
    monkeypatch.setattr(asr, "complete", complete)
    said = asr.run(flags_of(asr, "--workdir=w", f"--records={records}", f"--out={tmp_path}"))
    unit = VOCABULARY.block("units").first
    assert asked[0] == (1, VOCABULARY.id("[Speech]"), *range(unit + 1, unit + 6), VOCABULARY.id("[ASR]"))
    found = json.loads((tmp_path / "asr.json").read_text())
    assert (
        found["asr"]["wer"] == 2 / 4 and found["asr"]["empty"] == ["s/3"] and found["normalizer"] == "whisper-english"
    )
    assert "1 left out whose text has no words" in said and "1 transcripts were cut at the length limit" in said
    assert found["cut"] == 1 and found["ceiling"] is None and found["no_ceiling"]
    asr.run(flags_of(asr, "--workdir=w", f"--records={records}", f"--out={tmp_path}", "--prompt=interleaved"))
    assert asked[3][-1] == VOCABULARY.id("[Text]")


def test_a_real_model_transcribes(language, records, tmp_path, monkeypatch):
    monkeypatch.setattr(asr, "open_language", lambda *_: language)
    asr.run(flags_of(asr, "--workdir=w", f"--records={records}", f"--out={tmp_path}", "--split=train"))
    (row,) = map(json.loads, (tmp_path / "asr.jsonl").read_text().splitlines())
    assert (row["id"], row["reference"]) == ("s/0", "a blue")


def test_another_recogniser_is_the_ceiling(language, records, tmp_path, monkeypatch):
    monkeypatch.setattr(asr, "open_language", lambda *_: language)
    stale = tmp_path / "asr" / "recordings" / "0009.wav"
    stale.parent.mkdir(parents=True)
    stale.touch()
    judge = f'\'{sys.executable}\' -c \'import sys; print("a blue" if sys.argv[1][-5] == "0" else "")\' {{wav}}'
    arguments = [f"--records={records}", f"--out={tmp_path}", f"--asr={judge}", "--split=train"]
    said = asr.run(flags_of(asr, "--workdir=w", *arguments))
    found = json.loads((tmp_path / "asr.json").read_text())
    assert found["recordings"]["wer"] == 0.0 and found["ceiling"] == f"recordings: {judge}" and judge in said
    assert {path.name for path in stale.parent.iterdir()} == {"0000.wav"}
    bare = [Utterance("s/0", "a", units={INVENTORY.sha256: UnitSequence(np.arange(5), np.ones(5), 50.0)})]
    write_records(tmp_path / "bare", bare, inventories=[INVENTORY])
    with pytest.raises(ValueError, match="came as units, without sound"):
        asr.run(flags_of(asr, "--workdir=w", *arguments, f"--records={tmp_path / 'bare'}"))


def test_no_clip(language, records, monkeypatch):
    monkeypatch.setattr(asr, "open_language", lambda *_: language)
    with pytest.raises(ValueError, match="has no heldout clip .* whose id begins with 'x'"):
        asr.run(flags_of(asr, "--workdir=w", f"--records={records}", "--prefix=x"))


def test_what_is_spoken_is_judged_beside_its_ceilings(language, records, tmp_path, monkeypatch):
    script = tmp_path / "judge.py"  # says how many milliseconds it heard
    script.write_text(
        "import json, sys, soundfile\nfor p in open(sys.argv[1]).read().splitlines():\n"
        "  ms = round(soundfile.info(p).duration * 1000)\n"
        "  print(json.dumps(dict(audio_filepath=p, text=str(ms), score=ms)))\n"
    )
    judge = f"'{sys.executable}' '{script}' {{list}}"
    chain = Chain(language, voice := Beeps())
    monkeypatch.setattr(tts, "open_named", lambda *_, **__: chain)
    spoken = [(3, 4), (), (5, 6, 7)]

    def complete(model, vocabulary, tokenizer, prompts, *, to, sampling, key):
        assert to == "speech" and prompts[0][-1] == VOCABULARY.id("[TTS]") and prompts[0][1] == VOCABULARY.id("[Text]")
        return [SimpleNamespace(units=units, stopped=True) for units in spoken]

    monkeypatch.setattr(tts, "complete", complete)
    arguments = [f"--records={records}", f"--out={tmp_path}", f"--asr={judge}", f"--quality=length={judge}"]
    said = tts.run(flags_of(tts, "--workdir=w", *arguments, "--normalizer=none"))
    found = json.loads((tmp_path / "tts.json").read_text())
    lengths = dict(judge=judge, spoken=(160 + 240) / 2, resynthesis=1000, recordings=500)  # of what there is to hear
    assert found["quality"]["length"] == lengths and found["ceiling"] == ["resynthesis", "recordings"]
    assert found["nothing_said"] == 1 and found["judge"] == judge and found["spoken"]["wer"] == 1.0
    rows = [json.loads(line) for line in (tmp_path / "tts.jsonl").read_text().splitlines()]
    assert [r["hypothesis"] for r in rows if r["condition"] == "spoken"] == ["160", "", "240"]
    assert voice.prompts == [None] * 3 and not (tmp_path / "tts" / "spoken" / "0001.wav").exists()
    tts.run(flags_of(tts, "--workdir=w", *arguments, "--voice=tom"))
    assert voice.prompts == ["tom"] * 3
    assert "nothing was said of 1 texts" in said and (tmp_path / "tts" / "spoken" / "0000.wav").is_file()
    (tmp_path / "tts.json").unlink()
    with pytest.raises(ValueError, match="ended with 3"):
        tts.run(flags_of(tts, "--workdir=w", *arguments, f"--quality=bad='{sys.executable}' -c 'exit(3)' {{list}}"))
    assert json.loads((tmp_path / "tts.json").read_text())["spoken"]["wer"] == 1.0  # which was heard before
    with pytest.raises(SystemExit):
        flags_of(tts, "--workdir=w", f"--asr={judge}", "--clips=0")
    with pytest.raises(ValueError, match="--quality=dnsmos: give it a name"):
        tts.run(flags_of(tts, "--workdir=w", f"--asr={judge}", "--quality=dnsmos"))
    voice.untimed = "this one needs durations"
    with pytest.raises(ValueError, match="this one needs durations"):
        tts.run(flags_of(tts, "--workdir=w", *arguments))
