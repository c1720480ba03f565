import json

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import encode_flac
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.records import Utterance, write_records
from jaxslm.data.report import Report
from jaxslm.evaluation import codec as suite
from jaxslm.evaluation import codec_speed
from jaxslm.evaluation.codec import default_levels, evaluate_codec, read_recordings, summary
from jaxslm.evaluation.codec_metrics import mel_distance, si_sdr
from jaxslm.evaluation.reconstructions import Recording
from tests.codec.codecs import small_codec

RATE = 16_000
CODEC = small_codec()
METRICS = ["si_sdr", "mel"]


def clip(n=1600, hertz=300, seed=0):
    noise = 0.01 * np.random.default_rng(seed).normal(size=n)
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(n) / RATE) + noise).astype(np.float32)


RECORDINGS = [Recording("a", clip(), "some text"), Recording("in/b c", clip(1503, 500)), Recording("s", 0 * clip(800))]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    out = tmp_path_factory.mktemp("codec")
    options = dict(levels=[1, 3], metrics=METRICS, shown=2, speed=False, progress=False)
    return evaluate_codec(CODEC, "small", RECORDINGS, out, **options), out


def test_scores_are_those_of_reconstructions_from_the_first_codes(evaluated):
    result, out = evaluated
    for n in (1, 3):
        runner = CodecRunner(CODEC, n)
        made = runner.decode(runner.encode([recording.samples for recording in RECORDINGS]))
        level = result["levels"][str(n)]
        sdr = [si_sdr(r.samples, x) for r, x in zip(RECORDINGS[:2], made, strict=False)]
        mel = [mel_distance(r.samples, x, RATE) for r, x in zip(RECORDINGS, made, strict=True)]
        assert level["metrics"]["si_sdr"]["mean"] == pytest.approx(np.mean(sdr), abs=1e-4)
        assert level["metrics"]["si_sdr"]["failed"] == {"s": "the original is silent"}
        assert level["metrics"]["mel"]["mean"] == pytest.approx(np.mean(mel), rel=1e-4)
        assert level["metrics"]["mel"]["clips"] == 3 and level["bitrate"] == n * 4 * 2000
        lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
        ours = {line["id"]: line for line in lines if line["levels"] == n}
        assert [ours[id]["si_sdr"] for id in ("a", "in/b c", "s")] == [*map(pytest.approx, sdr), None]
        assert ours["s"]["failed"] == {"si_sdr": "the original is silent"}
    assert json.loads((out / "codec.json").read_text()) == result


def test_usage_and_entropy_are_those_of_all_codes(evaluated):
    result, _ = evaluated
    codes = np.concatenate([c.ids for c in CodecRunner(CODEC).encode([r.samples for r in RECORDINGS])])
    bits = []
    for level, ids in zip(result["codebooks"], codes.T, strict=True):
        shares = np.array([np.mean(ids == code) for code in set(ids.tolist())])
        assert level["usage"] == len(shares) / 16
        bits.append(-(shares * np.log2(shares)).sum())
        assert level["perplexity"] == pytest.approx(2 ** bits[-1])
    assert result["levels"]["3"]["entropy_bitrate"] == pytest.approx(2000 * sum(bits))
    assert result["levels"]["1"]["entropy_bitrate"] == pytest.approx(2000 * bits[0])


def test_sound_and_lists_are_there_for_other_programs(evaluated):
    _, out = evaluated
    for name in ("original", "reconstruction_1", "reconstruction_3"):
        lines = [line.split(" ", 1) for line in (out / f"{name}.scp").read_text().splitlines()]
        assert [key for key, _ in lines] == ["a", "in/b_c", "s"]
        for (_, path), recording in zip(lines, RECORDINGS, strict=True):
            samples, rate = soundfile.read(path)
            assert rate == RATE and len(samples) == len(recording.samples)
            if name == "original":
                np.testing.assert_allclose(samples, recording.samples, atol=2**-15)


def test_the_page_shows_so_many_clips_at_all_levels(evaluated):
    page = (evaluated[1] / "index.html").read_text()
    assert page.count("<h2>") == 2 and page.count("<audio") == 6
    assert "3 levels" in page and "some text" in page


def test_the_summary_tells_everything(evaluated):
    text = summary(evaluated[0])
    for words in ("3 clips", "small (", "8.000", "24.000", "(1 failed)", "the original is silent", "perplexity"):
        assert words in text


def test_other_processes_give_the_same_scores(tmp_path, monkeypatch):
    pytest.importorskip("pystoi")
    monkeypatch.setattr(suite, "_POOL_SECONDS", 0.0)
    options = dict(levels=[3], metrics=["mel", "stoi"], shown=0, speed=False, progress=False)
    recordings = [Recording("a", clip(9000)), Recording("b", 0 * clip(9000))]
    one, two = (evaluate_codec(CODEC, "x", recordings, tmp_path / str(n), workers=n, **options) for n in (1, 2))
    assert one == two and one["levels"]["3"]["metrics"]["stoi"]["failed"] == {"b": "the original is silent"}


def test_speed_is_that_of_the_clock(monkeypatch):
    monkeypatch.setattr(codec_speed, "SECONDS", 0.1)
    monkeypatch.setattr(codec_speed, "_LEAST_SECONDS", 0.0)
    ticks = iter(range(1000))
    monkeypatch.setattr(codec_speed.time, "perf_counter", lambda: next(ticks) / 2)  # each run takes half a second
    speed = codec_speed.measure_speed(CodecRunner(CODEC, batch_seconds=0.2), clip())
    assert speed["batch 1"] == {"encode": pytest.approx(0.2), "decode": pytest.approx(0.2)}
    assert speed["batch 2"] == {"encode": pytest.approx(0.4), "decode": pytest.approx(0.4)}
    assert speed["device"].startswith("cpu")


@pytest.mark.parametrize("recordings, words", [([], "no clip"), ([RECORDINGS[0]] * 2, "two clips are called 'a'")])
def test_no_clip_and_two_of_one_name_are_refused(recordings, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        evaluate_codec(CODEC, "x", recordings, tmp_path, levels=[3], metrics=METRICS, speed=False, progress=False)


def test_levels_are_powers_of_two_and_all_that_a_codec_can_do():
    assert default_levels(CODEC) == [1, 2, 3]
    assert default_levels(small_codec(n_levels=8, kind="split_rvq", n_semantic=3)) == [4, 8]
    assert default_levels(small_codec(kind="fsq")) == [1]


def test_recordings_are_those_of_a_split_at_the_rate_of_the_codec(tmp_path):
    fields = dict(audio=encode_flac(clip()), duration=0.1)
    utterances = [Utterance("t", **fields), Utterance("h", "words", split="heldout", **fields), Utterance("d", "text")]
    write_records(tmp_path / "records", utterances)
    found = list(read_recordings([tmp_path / "records"], 24_000, Report()))
    assert [(r.id, r.text, len(r.samples)) for r in found] == [("h", "words", 2400)]
    assert [r.id for r in read_recordings([tmp_path / "records"], RATE, Report(), split="all")] == ["t", "h"]
    with pytest.raises(ValueError, match="--split=test"):
        next(read_recordings([tmp_path / "records"], RATE, Report(), split="test"))
