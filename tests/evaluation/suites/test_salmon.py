import pytest

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.salmon import PARTS, read
from tests.evaluation.suites.recordings import audio, causes, record


def suite(folder, **options):
    report = Report()
    return list(read(folder, report, **options)), report


def test_the_first_of_a_sample_is_the_right_one(tmp_path):
    for part in PARTS:
        record(tmp_path / part, "sample_10_1", "sample_10_0", "sample_9_0", "sample_9_1")
        (tmp_path / part / "metadata.json").write_text("[]")
    choices, report = suite(tmp_path)
    folder = tmp_path / "bg_alignment"
    assert choices[0] == Choice(
        "bg_alignment/9",
        ((Part(audio=(folder / "sample_9_0.wav",)),), (Part(audio=(folder / "sample_9_1.wav",)),)),
        tags={"part": "bg_alignment"},
    )
    assert [choice.id for choice in choices] == [f"{part}/{number}" for part in PARTS for number in (9, 10)]
    assert len(PARTS) == 8 and not report.entries


def test_parts_are_chosen(tmp_path):
    for part in PARTS[:3]:
        record(tmp_path / part, "sample_0_0", "sample_0_1")
    assert [c.id for c in suite(tmp_path, parts=[PARTS[2], PARTS[0]])[0]] == [f"{PARTS[2]}/0", f"{PARTS[0]}/0"]
    assert [c.id for c in suite(tmp_path, parts=PARTS[1])[0]] == [f"{PARTS[1]}/0"]
    with pytest.raises(ValueError, match=r"no part 'gender_constancy'.*Did you mean gender_consistency\?"):
        suite(tmp_path, parts=["gender_constancy"])


def test_what_is_no_pair_is_left_out(tmp_path):
    record(tmp_path / PARTS[0], "sample_0_0", "sample_0_1", "sample_1_0", "sample_2_0", "sample_2_1", "sample_2_2")
    record(tmp_path / PARTS[0], "sample_x_0", "sample_3", "example_4_0")
    choices, report = suite(tmp_path, parts=PARTS[:2])
    assert [(c.id, audio(c)) for c in choices] == [(f"{PARTS[0]}/0", [["sample_0_0.wav"], ["sample_0_1.wav"]])]
    assert causes(report) == [
        *[("recording", "not called sample_<number>_*.wav")] * 3,
        ("choice", "1 recording(s) of the sample, not 2"),
        ("choice", "3 recording(s) of the sample, not 2"),
        ("part", "no wavs there"),
    ]


def test_another_folder_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="expected bg_alignment, .*speaker_consistency there, with wavs sample_"):
            suite(folder)
