import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources.grammar import in_pool
from jaxslm.evaluation.suites import read_suite
from jaxslm.evaluation.topic_cloze import write_cloze


def test_what_is_written_is_read_as_story_cloze(tmp_path):
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    write_cloze(tmp_path, 3, ("alto",))
    report = Report()
    spec = dict(kind="storycloze", path=str(tmp_path), modes=("S", "T", "S->T", "T->S"))
    choices = read_suite(spec, report)
    assert len(choices) == 12 and not report.count()
    right, wrong = (option[0].text for option in choices[1].options)
    assert right != wrong and right.rsplit(". ", 1)[0] == wrong.rsplit(". ", 1)[0]
    said = (f"{each.removesuffix('.')}." for text in (right, wrong) for each in text.split(". "))
    assert all(in_pool(sentence, ("speech", "heldout")) for sentence in said)  # which training never hears
