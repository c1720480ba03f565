import pytest

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.storycloze import MODES, read
from tests.evaluation.suites.recordings import audio, causes, record

TEXTS = {"mutual": "Anna went out.\n", "correct": "\ufeffShe got wet.", "incorrect": " She slept."}


def suite(folder, *modes):
    report = Report()
    return list(read(folder, report, modes=modes or ("S",))), report


@pytest.fixture
def pieces(tmp_path):
    folder = tmp_path / "part"
    for story in ("12_x", "9_x"):
        for piece, text in TEXTS.items():
            record(folder, f"{story}_{piece}")
            (folder / f"{story}_{piece}.txt").write_text(text, encoding="utf-8")
    return folder


def test_whole_stories(tmp_path):
    record(tmp_path, "2_b", "10_c", "11_c", "3_b")
    choices, report = suite(tmp_path)
    assert choices[0] == Choice(
        "2", ((Part(audio=(tmp_path / "2_b.wav",)),), (Part(audio=(tmp_path / "3_b.wav",)),)), tags={"mode": "S"}
    )
    assert [c.id for c in choices] == ["2", "10"] and not report.entries
    with pytest.raises(ValueError, match="whole stories, which are speech alone: leave T, S->T out of modes"):
        suite(tmp_path, "S", "T", "S->T")


def test_every_mode_of_stories_in_pieces(pieces):
    choices, report = suite(pieces, *MODES)
    assert [c.id for c in choices[:4]] == ["9_x S", "9_x T", "9_x S->T", "9_x T->S"] and len(choices) == 8
    assert [dict(c.tags) for c in choices[:4]] == [{"mode": mode} for mode in MODES]
    mutual, right, wrong = (pieces / f"9_x_{piece}.wav" for piece in TEXTS)
    assert [c.options for c in choices[:4]] == [
        ((Part(audio=(mutual, right)),), (Part(audio=(mutual, wrong)),)),  # said in one breath
        ((Part(text="Anna went out. She got wet."),), (Part(text="Anna went out. She slept."),)),
        (
            (Part(audio=(mutual,)), Part(text="She got wet.")),
            (Part(audio=(mutual,)), Part(text="She slept.")),
        ),
        (
            (Part(text="Anna went out."), Part(audio=(right,))),
            (Part(text="Anna went out."), Part(audio=(wrong,))),
        ),
    ]
    assert all(choice.context == () for choice in choices) and not report.entries


def test_stories_in_folders_below(pieces):
    choices, _ = suite(pieces.parent, "T->S")
    assert [c.id for c in choices] == ["part/9_x T->S", "part/12_x T->S"]
    assert audio(choices[1]) == [["12_x_correct.wav"], ["12_x_incorrect.wav"]]


def test_a_mode_needs_only_its_files(pieces):
    for name in ("9_x_mutual.wav", "9_x_incorrect.txt", "12_x_correct.wav"):
        (pieces / name).unlink()
    (pieces / "9_x_wrong.wav").write_bytes(b"")
    choices, report = suite(pieces, *MODES)
    assert [c.id for c in choices] == ["9_x T->S", "12_x T", "12_x S->T"]
    assert causes(report) == [
        ("file", "no piece of a story by its name"),
        ("choice", "no file '9_x_mutual.wav'"),
        ("choice", "no file '9_x_incorrect.txt'"),
        ("choice", "no file '9_x_mutual.wav'"),
        ("choice", "no file '12_x_correct.wav'"),
        ("choice", "no file '12_x_correct.wav'"),
    ]


@pytest.mark.parametrize(
    "data, cause",
    [
        ("Sie schlief früh.".encode("latin-1"), "is not UTF-8 (invalid start byte at byte 14)"),
        ("She slept.".encode("utf-16"), "is UTF-16, not UTF-8"),
        ("She slept.".encode("utf-16-be"), "is UTF-16 or no text at all, not UTF-8"),
        ("She slept.".encode("utf-32"), "is UTF-32, not UTF-8"),
        (b" \n", "holds no text"),
        (b"", "holds no text"),
    ],
)
def test_a_text_that_cannot_be_read_costs_its_own_story(pieces, data, cause):
    (pieces / "9_x_incorrect.txt").write_bytes(data)
    choices, report = suite(pieces, "T", "T->S")
    assert [c.id for c in choices] == ["9_x T->S", "12_x T", "12_x T->S"]
    assert causes(report) == [("choice", f"'9_x_incorrect.txt' {cause}")]


def test_other_folders_and_modes_are_refused(tmp_path):
    for folder, cause in [(tmp_path, "no stories there"), (tmp_path / "nowhere", "no such folder")]:
        with pytest.raises(ValueError, match=f"{cause}; expected <number>_"):
            suite(folder)
    with pytest.raises(ValueError, match="no mode 'S-T': use S, T, S->T, T->S. Did you mean S->T?"):
        suite(tmp_path, "S-T")
