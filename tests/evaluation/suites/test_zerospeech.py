import math

import pytest

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.zerospeech import read, write_scores
from tests.evaluation.suites.recordings import audio, causes, record

LEXICAL = "id,filename,voice,frequency,word,phones,length,correct"
WORDS = [
    "0,aBc,A,5,brick,B R IH K,4,1",
    "0,dEf,B,5,brick,B R IH K,4,1",
    "1,gHi,A,0,squalled,S K W AO L D,6,1",
    "1,jKl,A,,,S K W IH L D,6,0",
    "0,mNo,B,,,B L IH K,4,0",  # the voices in another order than of the words
    "0,pQr,A,,,B L IH K,4,0",
]
STEMS = ["aBc", "dEf", "gHi", "jKl", "mNo", "pQr"]


@pytest.fixture
def words(tmp_path):
    def write(*lines, kind="lexical", header=LEXICAL, encoding="utf-8", stems=STEMS):
        folder = tmp_path / kind / "dev"
        record(folder, *stems)
        (folder / "gold.csv").write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
        report = Report()
        return list(read(tmp_path, report, kind=kind)), report

    return write


def test_words_and_non_words_are_matched_by_id_and_voice(words, tmp_path):
    choices, report = words(*WORDS)
    folder = tmp_path / "lexical" / "dev"
    assert choices[0] == Choice(
        id="0/A",
        options=((Part(audio=(folder / "aBc.wav",)),), (Part(audio=(folder / "pQr.wav",)),)),
        item="0",
        tags={"frequency": "6-20", "vocabulary": "in", "length": "4"},  # 5 times is the next band, as officially
        names=("aBc", "pQr"),
    )
    assert [(c.id, c.item, c.names) for c in choices[1:]] == [
        ("0/B", "0", ("dEf", "mNo")),
        ("1/A", "1", ("gHi", "jKl")),
    ]
    assert choices[2].tags == {"frequency": "oov", "vocabulary": "out", "length": "6"}
    assert not report.entries


@pytest.mark.parametrize(
    "count, band",
    [("0", "oov"), ("1", "1-5"), ("4", "1-5"), ("19", "6-20"), ("20", "21-100"), ("99.0", "21-100"), ("100", ">100")],
)
def test_bands_are_cut_as_officially(words, count, band):
    choices, _ = words(WORDS[2].replace(",0,", f",{count},"), WORDS[3])
    assert choices[0].tags["frequency"] == band


def test_a_word_without_a_frequency_is_in_no_band(words):
    choices, report = words(WORDS[2].replace(",0,", ",,"), WORDS[3], stems=["gHi", "jKl"])
    assert choices[0].tags == {"length": "6"}
    assert causes(report) == [("frequency of a word", "the frequency is ''")]


def test_sentences(words):
    header = "id,filename,voice,type,subtype,transcription,correct"
    lines = [
        '3,s1,A,anaphor,gender,"Dogs, they say, bark",1',
        "3,s2,A,anaphor,number,Cats sleep,0",
        '3,s3,A,anaphor,gender,"Dogs, they say, barks",0',
        "3,s4,A,anaphor,number,Cat sleep,1",
    ]
    choices, report = words(*lines, kind="syntactic", header=header, stems=["s1", "s2", "s3", "s4"])
    assert [(c.id, c.item, c.names) for c in choices] == [
        ("anaphor/gender/3/A", "anaphor/gender/3", ("s1", "s3")),
        ("anaphor/number/3/A", "anaphor/number/3", ("s4", "s2")),  # the right one first, wherever its row is
    ]
    assert choices[1].tags == {"type": "anaphor", "subtype": "number"}
    assert not report.entries


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda rows: rows[:5], ("choice", "no row with correct = 0 for it")),
        (lambda rows: [*rows, rows[0]], None),
        (lambda rows: [*rows, "0,zzz,A,5,brick,B,1,1"], ("choice", "3 rows for one pair and voice")),
        (lambda rows: [rows[0].replace("aBc", "gone"), *rows[1:]], ("choice", "no file 'gone.wav'")),
        (lambda rows: [rows[0][:-1] + "2", *rows[1:]], ("row", "the label correct is '2'")),
        (lambda rows: [rows[0].replace("aBc", "../dev/aBc"), *rows[1:]], ("row", "'../dev/aBc' is no filename")),
        (lambda rows: [rows[0].replace("aBc", ""), *rows[1:]], ("row", "'' is no filename")),
        (lambda rows: [rows[0].replace(",A,", ",,"), *rows[1:]], ("row", "nothing under voice")),
        (lambda rows: [rows[0] + ",extra", *rows[1:]], ("row", "9 fields under 8 columns")),
        (lambda rows: [rows[0].replace("brick", '"brick'), *rows[1:]], ("row", "not CSV (unexpected end of data)")),
    ],
)
def test_a_bad_row_costs_its_own_pair(words, change, found):
    choices, report = words(*change(WORDS))
    kept = [choice.id for choice in choices]
    if found is None:  # the same row twice costs nothing but itself
        assert kept == ["0/A", "0/B", "1/A"] and causes(report) == [("row", "'aBc' is in an earlier row")]
    else:
        assert sorted(kept) == ["0/B", "1/A"] and found in causes(report)


def test_one_recording_is_not_in_two_pairs(words):
    choices, report = words(*WORDS, "2,aBc,A,9,word,W,1,1", "2,new,A,,,W,1,0", stems=[*STEMS, "new"])
    assert [choice.id for choice in choices] == ["0/A", "0/B", "1/A"]
    assert causes(report) == [("row", "'aBc' is in an earlier row"), ("choice", "no row with correct = 1 for it")]


def test_a_recording_without_a_row_is_named(words):
    _, report = words(*WORDS, stems=[*STEMS, "more"])
    assert causes(report) == [("recording", "no row in gold.csv")]


def test_encodings(words):
    assert len(words(*WORDS, encoding="utf-8-sig")[0]) == 3
    with pytest.raises(ValueError, match="gold.csv is UTF-16, not UTF-8"):
        words(*WORDS, encoding="utf-16")
    with pytest.raises(ValueError, match="gold.csv is UTF-16 or no text"):
        words(*WORDS, encoding="utf-16-le")  # without a mark
    choices, report = words(*WORDS[:2], WORDS[2].replace("squalled", "café"), *WORDS[3:], encoding="latin-1")
    assert [choice.id for choice in choices] == ["0/A", "0/B"]
    assert causes(report)[0] == ("row", "not UTF-8 (invalid continuation byte)")


@pytest.mark.parametrize(
    "header, cause", [("filename,id", "no column voice, correct, frequency"), ("", "no column|is empty")]
)
def test_a_file_without_its_columns_is_refused(words, header, cause):
    with pytest.raises(ValueError, match=cause):
        words(header=header)


def test_hidden_labels_and_other_folders(tmp_path):
    record(tmp_path / "lexical" / "test", "xyz")
    for folder, options, cause in [
        (tmp_path, dict(split="test"), "test/gold.csv: no such file; the labels of some splits are not published"),
        (tmp_path, dict(split="dev"), "no such split"),
        (tmp_path, dict(split="tset"), "split 'tset' is not one of dev, test. Did you mean test?"),
        (tmp_path, dict(kind="lexcial"), "Did you mean lexical?"),
        (tmp_path / "nowhere", {}, r"expected lexical/dev with wavs and gold.csv there, or recordings <number>_"),
    ]:
        with pytest.raises(ValueError, match=cause.replace("?", r"\?")):
            list(read(folder, Report(), **options))
    (tmp_path / "lexical" / "test" / "gold.csv").write_text(LEXICAL)
    with pytest.raises(ValueError, match="is one split; give the folder that holds lexical/dev"):
        list(read(tmp_path / "lexical" / "test", Report()))


def numbered(folder, kind="lexical", **options):
    report = Report()
    return list(read(folder, report, kind=kind, **options)), report


def test_numbered_recordings(tmp_path):
    record(tmp_path, "10_word", "11_non", "8_word", "9_non")
    choices, report = numbered(tmp_path)
    assert [(c.id, audio(c)) for c in choices] == [
        ("8", [["8_word.wav"], ["9_non.wav"]]),
        ("10", [["10_word.wav"], ["11_non.wav"]]),
    ]
    assert (choices[0].names, choices[0].item, dict(choices[0].tags)) == ((), "", {}) and not report.entries
    with pytest.raises(ValueError, match="numbered recordings have no splits"):
        numbered(tmp_path, split="test")


def test_numbered_recordings_in_folders(tmp_path):
    record(tmp_path / "b", "0+x", "1+y")
    record(tmp_path / "a", "1+x", "2+y")  # counted from 1
    choices, report = numbered(tmp_path, "syntactic")
    assert [(c.id, audio(c)) for c in choices] == [
        ("a/1", [["1+x.wav"], ["2+y.wav"]]),
        ("b/0", [["0+x.wav"], ["1+y.wav"]]),
    ]
    assert [dict(c.tags) for c in choices] == [{"set": "a"}, {"set": "b"}]
    assert [(e["kind"], e["where"]) for e in report.entries] == [("note", str(tmp_path / "a"))]


def test_a_lost_recording_turns_no_other_pair_round(tmp_path):
    record(tmp_path, "0_a", "1_a", "3_b", "4_c", "5_c", "6_d", "7_d", "7_e", "voice_8")
    choices, report = numbered(tmp_path)
    assert [c.id for c in choices] == ["0", "4"]
    assert causes(report) == [
        ("recording", "no number before a '_' in its name"),
        ("choice", "no recording 2"),
        ("choice", "2 recordings have the number 7"),
    ]


def test_numbers_that_may_be_paired_in_two_ways_are_not_used(tmp_path):
    record(tmp_path, "1_a", "2_b", "3_b")  # 0 is lost, or 4 is
    choices, report = numbered(tmp_path)
    assert not choices and causes(report) == [("folder", "numbers with gaps, which may be paired in two ways")]


def test_scores_are_written_as_submitted(tmp_path):
    path = tmp_path / "new" / "lexical" / "dev.txt"
    write_scores(path, {"aBc": -1, "dEf": -0.1 - 0.2, "gHi": -1e-30})
    assert path.read_bytes() == b"aBc -1.0\ndEf -0.30000000000000004\ngHi -1e-30\n"


@pytest.mark.parametrize("scores", [{}, {"a b": 1.0}, {"": 1.0}, {"a": math.nan}, {"a": -math.inf}])
def test_scores_that_would_be_counted_wrong_are_refused(tmp_path, scores):
    with pytest.raises(ValueError, match="dev.txt"):
        write_scores(tmp_path / "dev.txt", scores)
    assert not (tmp_path / "dev.txt").exists()
