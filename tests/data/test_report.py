import logging

from jaxslm.data.records import Utterance
from jaxslm.data.report import Coverage, Report
from jaxslm.units.words import Word


def test_summary_counts_causes_that_differ_only_in_names_and_numbers():
    report = Report()
    for i in range(5):
        report.left_out(f"m.jsonl:{i}", f"no file 'clip{i}.wav'", "correct the path")
    report.left_out("m.jsonl:9", "91.5 s is longer than the limit of 60 s", "cut it")
    report.note("m.jsonl:3", "2 channels mixed down")
    lines = report.summary().splitlines()
    assert lines[0] == "5 x utterance left out: no file … (m.jsonl:0, m.jsonl:1, m.jsonl:2, ...)"
    assert lines[1].strip() == "correct the path"
    assert lines[2].startswith("1 x utterance left out: 91.5 s is longer than the limit of 60 s (m.jsonl:9)")
    assert lines[4] == "1 x 2 channels mixed down (m.jsonl:3)"
    assert report.count() == 6 and report.count("note") == 1 and report.count(what="document") == 0
    assert Report().summary() == "nothing was left out"


def test_log_shows_the_first_of_a_cause_with_its_cure(caplog):
    report = Report()
    with caplog.at_level(logging.INFO):
        for i in range(100):
            report.left_out(f"m.jsonl:{i}", "not JSON", "write JSON")
    assert [record.getMessage() for record in caplog.records] == [
        "m.jsonl:0: utterance left out: not JSON; write JSON",
        "m.jsonl:1: utterance left out: not JSON; write JSON",
        "m.jsonl:2: utterance left out: not JSON; write JSON (more of this kind are only counted)",
    ]


def test_saved_report_comes_back_without_logging_again(tmp_path, caplog):
    report = Report(log=False)
    for where in ("a:10", "a:9", "b:1"):
        report.left_out(where, "a\u2028cause", "a cure", what="document")
    report.save(tmp_path / "report.jsonl")
    loaded = Report.load(tmp_path / "report.jsonl").entries
    assert loaded == [report.entries[i] for i in (1, 0, 2)], "in the order of the places"
    assert Report.load(tmp_path / "absent.jsonl").entries == []
    assert not caplog.records


def test_word_times_are_counted_by_source_and_origin(caplog):
    words = (Word("a", 0.0, 0.5), Word("b", 0.5, 0.7))
    coverage, text = Coverage(), Coverage()
    coverage.add(Utterance("1", "a b", b"", 1800.0, (Word("a", 0, 450), Word("b", 900, 1350)), "pocketsphinx"))
    coverage.add(Utterance("2", "a b", b"", 1800.0))
    coverage.add(Utterance("3", "", b"", 1800.0))  # untranscribed
    text.add(Utterance("4", "a document", words=words, words_from="record"))
    report = Report()
    with caplog.at_level(logging.INFO):
        report.coverage("books", coverage)
        report.coverage("documents", text)
    line = "books: 1 of 2 utterances have word times (1 pocketsphinx), over 25% of 1.00 h"
    assert [record.getMessage() for record in caplog.records] == [line]
    assert report.summary() == f"nothing was left out\n{line}" and report.count() == 0
    report.left_out("m:1", "silent", "remove it")
    assert report.summary().splitlines() == [line, "1 x utterance left out: silent (m:1)", "    remove it"]
