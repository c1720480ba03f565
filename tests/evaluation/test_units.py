import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxslm.audio.io import encode_flac
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.evaluation.units import evaluate_units, summary
from jaxslm.units.bpe import UnitBpe
from jaxslm.units.encoders import load_encoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.learning import learn_inventory

LAUNCH = Path(__file__).parents[2] / "launch" / "evaluate.py"
PHONES = {"AA": 200.0, "IY": 900.0, "S": 2500.0}  # a tone each: units that follow them tell all
SEGMENT = 0.24


def _clip(names: list[str], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    times = np.arange(round(SEGMENT * 16_000)) / 16_000
    tones = [0.2 * np.sin(2 * np.pi * PHONES[name] * times) if name else 0 * times for name in names]
    return (np.concatenate(tones) + 0.002 * rng.normal(size=len(names) * len(times))).astype(np.float32)


def _textgrid(names: list[str]) -> str:
    rows = "\n".join(f'{i * SEGMENT} {(i + 1) * SEGMENT} "{name}"' for i, name in enumerate(names))
    head = f'File type = "ooTextFile"\nObject class = "TextGrid"\n0 {len(names) * SEGMENT} <exists> 1\n'
    return f'{head}"IntervalTier" "phones" 0 {len(names) * SEGMENT} {len(names)}\n{rows}\n'


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(records, TextGrids, ABX items) of eight clips of tones, half of them held out."""
    root = tmp_path_factory.mktemp("units")
    names = [["", *np.random.default_rng(i).permutation([*PHONES, *PHONES]), ""] for i in range(8)]
    clips = [_clip(row, seed=i) for i, row in enumerate(names)]
    inventory = learn_inventory(load_encoder("mfcc"), clips, 12, seed=0)
    utterances = [
        Utterance(
            id=f"tones/c{i}", text="a", audio=encode_flac(clip), duration=len(clip) / 16_000, speaker=f"s{i % 2}",
            units={inventory.sha256: inventory.encode(clip)}, split="heldout" if i % 2 else "train",
        )
        for i, clip in enumerate(clips)
    ]  # fmt: skip
    write_records(root / "records", utterances, inventories=[inventory])
    inventory.save(root / "records" / "inventory")
    (root / "phones").mkdir()
    lines = ["#file onset offset #phone prev-phone next-phone speaker"]
    for i, row in enumerate(names):
        (root / "phones" / f"c{i}.TextGrid").write_text(_textgrid(row))
        for at, name in enumerate(row):
            if name:
                lines.append(f"c{i} {at * SEGMENT:.3f} {(at + 1) * SEGMENT:.3f} {name} x y s{i % 2}")
    (root / "abx.item").write_text("\n".join(lines) + "\n")
    return root


def _evaluate(corpus: Path, out: Path, **options) -> dict:
    inventory = UnitInventory.load(corpus / "records" / "inventory")
    options = dict(phones=str(corpus / "phones"), changed_clips=0, progress=False) | options
    return evaluate_units(Records(corpus / "records"), inventory, out, **options)


def test_all_sections_are_measured_and_written(corpus, tmp_path):
    result = _evaluate(corpus, tmp_path, split="all", items=corpus / "abx.item", changed_clips=2, bpe_tokens=20)
    assert result == json.loads((tmp_path / "units.json").read_text())
    assert (tmp_path / "units.png").read_bytes().startswith(b"\x89PNG")
    assert result["records"]["utterances"] == result["phone_labels"]["labelled"] == 8
    assert result["phones"]["phones"] == 4 and result["phones_without_silence"]["phones"] == 3
    assert result["phones"]["pnmi"] > 0.7 and result["phones_without_silence"]["pnmi"] > 0.7
    frames = [
        utterance.units[result["inventory"]["sha256"]].durations.sum() for utterance in Records(corpus / "records")
    ]
    assert result["phones"]["frames"] == sum(frames)
    changed = {name: percent for name, percent in result["unit_edit_distance"].items() if name != "clips"}
    assert len(changed) == 6 and all(0 < percent for percent in changed.values())
    sequences = [utterance.units[result["inventory"]["sha256"]].ids for utterance in Records(corpus / "records")]
    bpe = UnitBpe.load(tmp_path / "bpe.json", result["inventory"]["sha256"])
    assert result["bpe"]["size"] == bpe.size == 20
    assert result["bpe"]["units_per_token"] == bpe.compression(sequences).ratio > 1
    for kind in ("one-hot units", "centroids", "features"):  # chance is .5
        assert result["abx"][kind]["within"] < 0.1 and result["abx"][kind]["across"] < 0.1
    assert result["abx"]["files"] == 8
    lines = summary(result).splitlines()
    assert any(line.startswith("phones pnmi ") for line in lines) and any(
        "abx features within" in line for line in lines
    )


def test_only_the_split_that_was_asked_for_is_measured(corpus, tmp_path):
    assert _evaluate(corpus, tmp_path)["records"]["utterances"] == 4


def test_utterances_without_phones_are_counted(corpus, tmp_path):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "c1.TextGrid").write_text((corpus / "phones" / "c1.TextGrid").read_text())
    (tmp_path / "some" / "c3.TextGrid").write_text("broken")
    result = _evaluate(corpus, tmp_path, phones=str(tmp_path / "some"))
    assert (result["phone_labels"]["labelled"], result["phone_labels"]["failed"]) == (1, 3)


def test_units_of_another_inventory_are_refused(corpus, tmp_path):
    other = learn_inventory(load_encoder("mfcc"), [_clip(["AA", "S"], 0)], 4, seed=0)
    with pytest.raises(ValueError, match=r"has no units of mfcc-l0-k4 .*only of: mfcc-l0-k12"):
        evaluate_units(Records(corpus / "records"), other, tmp_path, phones=str(corpus / "phones"), progress=False)


def test_what_cannot_be_measured_is_named(corpus, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none of 4 utterances has phones .*install pocketsphinx.*--phones=FOLDER"):
        _evaluate(corpus, tmp_path, phones=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="--split=dev: choose train, heldout or all"):
        _evaluate(corpus, tmp_path, split="dev")
    (tmp_path / "other.item").write_text("#file\nx 0 1 AA a b s\n")
    with pytest.raises(ValueError, match="none of the 1 files of the ABX items .*'x'"):
        _evaluate(corpus, tmp_path, items=tmp_path / "other.item")


def _run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, LAUNCH, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_the_command(corpus, tmp_path):
    done = _run(
        "--suite=units", f"--records={corpus / 'records'}", f"--out={tmp_path / 'out'}",
        f"--phones={corpus / 'phones'}", "--changed_clips=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "phones pnmi" in done.stdout and (tmp_path / "out" / "units.png").is_file()
    failed = _run("--suite=units", f"--records={tmp_path}", f"--out={tmp_path}")
    assert failed.returncode == 2 and f"{tmp_path} holds no prepared records; name a folder" in failed.stderr
    assert "Traceback" not in failed.stderr
