import json

import pytest

from jaxslm.units import alignment_files
from jaxslm.units.alignment_files import find_alignment, read_ctm, read_textgrid, read_word_json
from jaxslm.units.words import Word, match_words

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.75
            mark = "5 [x] ""here"" again"
    item [2]:
        class = "IntervalTier"
        name = "spk1 - words"
        xmin = 0
        xmax = 1.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 1
            text = "say ""42"" [1]"
        intervals [3]:
            xmin = 1
            xmax = 1.5
            text = "naïve"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "s1"
"""
SHORT = """File type = "ooTextFile"
"TextGrid"

0
1.5
<exists>
1
"IntervalTier"
"ORT-MAU"
0
1.5
2
0
0.25
""
0.25
1.5e0
"hello"
"""


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_textgrid_long_form(tmp_path, encoding):
    words = read_textgrid(write(tmp_path / "a.TextGrid", LONG, encoding))
    assert words == [Word("", 0.0, 0.25), Word('say "42" [1]', 0.25, 1.0), Word("naïve", 1.0, 1.5)]


def test_textgrid_short_form_with_an_only_tier_of_any_name(tmp_path):
    words = read_textgrid(write(tmp_path / "a.TextGrid", SHORT))
    assert words == [Word("", 0.0, 0.25), Word("hello", 0.25, 1.5)]


@pytest.mark.parametrize("name", ["words", "Word", "anna - words", "ORT-MAU"])
def test_the_tier_of_words_is_known_by_its_name(tmp_path, name):
    grid = SHORT.replace("<exists>\n1\n", "<exists>\n2\n").replace("ORT-MAU", name)
    phones = '"IntervalTier"\n"MAU"\n0\n1.5\n1\n0\n1.5\n"h"\n'
    big_endian = b"\xfe\xff" + (grid + phones).replace("\n", "\r\n").encode("utf-16-be")
    (tmp_path / "a.TextGrid").write_bytes(big_endian)
    assert read_textgrid(tmp_path / "a.TextGrid") == [Word("", 0.0, 0.25), Word("hello", 0.25, 1.5)]


@pytest.mark.parametrize("name", ["phones", "Phone", "anna - phones", "MAU"])
def test_the_tier_of_phones_is_known_by_its_name(tmp_path, name):
    phones = f'"IntervalTier"\n"{name}"\n0\n1.5\n1\n0\n1.5\n"h"\n'
    path = write(tmp_path / "a.TextGrid", SHORT.replace("<exists>\n1\n", "<exists>\n2\n") + phones)
    assert read_textgrid(path, "phones") == [Word("h", 0.0, 1.5)]
    with pytest.raises(ValueError, match="name the one with the phones 'phones'"):
        read_textgrid(write(tmp_path / "b.TextGrid", SHORT), "phones")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "not a TextGrid in text form"),
        ("hello", "not a TextGrid in text form"),
        (SHORT.replace("TextGrid", "Pitch"), "its object class is 'Pitch'"),
        (SHORT[: SHORT.index('"hello"')], "not a TextGrid in text form .*; save it again"),
        (LONG[: LONG.index("item [3]")], "not a TextGrid in text form"),
        (
            LONG.replace("spk1 - words", "wrd"),
            r"its interval tiers are \['wrd', 'phones'\]; name the one with the words",
        ),
    ],
)
def test_bad_textgrids_are_refused(tmp_path, content, message):
    path = write(tmp_path / "a.TextGrid", content)
    with pytest.raises(ValueError, match=f"a.TextGrid: .*{message}"):
        read_textgrid(path)


def test_ctm(tmp_path):
    path = write(
        tmp_path / "all.ctm", ";; made by hand\nu1 1 0.5 0.25 hello 0.9\nu2 1 0 1 other\n\nu1 A 0.75 0.5 <eps>\n"
    )
    assert read_ctm(path, "u1") == [Word("hello", 0.5, 0.75), Word("<eps>", 0.75, 1.25)]
    with pytest.raises(ValueError, match="all.ctm: no line is of utterance 'u3'"):
        read_ctm(path, "u3")
    write(path, "u1 1 0.5 0.25 hello\nu1 1 0.5 x hello\n")
    with pytest.raises(
        ValueError, match="all.ctm:2: 'u1 1 0.5 x hello' is not `utterance channel start duration word`"
    ):
        read_ctm(path, "u1")


def test_ctm_of_a_whole_corpus_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "all.ctm", "".join(f"u{i} 1 0.0 0.5 word{i} 1.0 lex speaker\n" for i in range(50)))
    reads, decode = [], alignment_files._decode
    monkeypatch.setattr(alignment_files, "_decode", lambda path: reads.append(path) or decode(path))
    assert [read_ctm(path, f"u{i}")[0].text for i in range(50)] == [f"word{i}" for i in range(50)]
    assert len(reads) == 1
    write(path, "u1 1 0.0 0.5 another\n")
    assert read_ctm(path, "u1") == [Word("another", 0.0, 0.5)]


PAIRS = [["the", 0, 0.5], ["cat", 0.5, 1.25]]


@pytest.mark.parametrize(
    "record",
    [
        PAIRS,
        {"aligned_text": PAIRS, "text": "the cat"},
        {"words": PAIRS},
        {"words": [{"word": word, "start": start, "end": end, "score": 1} for word, start, end in PAIRS]},
        [{"word": word, "start": start, "end": end} for word, start, end in PAIRS],
        {
            "segments": [
                {"start": s, "end": e, "words": [dict(word=w, start=s, end=e, score=0.9)]} for w, s, e in PAIRS
            ],
            "word_segments": [],
        },
        {
            "start": 0,
            "end": 2,
            "tiers": {
                "phones": {"type": "interval", "entries": [[0, 1, "DH"]]},
                "words": {"type": "interval", "entries": [[start, end, word] for word, start, end in PAIRS]},
            },
        },
        {
            "transcript": "the cat",
            "words": [dict(alignedWord=w, case="success", start=s, end=e, startOffset=0, word=w) for w, s, e in PAIRS],
        },
    ],  # fmt: skip
)
def test_json_forms(tmp_path, record):
    path = write(tmp_path / "a.json", json.dumps(record))
    assert read_word_json(path) == [Word("the", 0.0, 0.5), Word("cat", 0.5, 1.25)]


def test_a_word_that_the_aligner_did_not_find_has_the_gap_between_its_neighbours(tmp_path):
    in_the_middle = {"segments": [{"words": [dict(word="in", start=0, end=0.2), dict(word="2014", score=0)]},
                                  {"words": [dict(word="we", start=0.9, end=1.1)]}]}  # fmt: skip
    path = write(tmp_path / "a.json", json.dumps(in_the_middle))
    assert read_word_json(path) == [Word("in", 0.0, 0.2), Word("2014", 0.2, 0.9), Word("we", 0.9, 1.1)]
    lost = {"case": "not-found-in-audio", "word": "so", "startOffset": 3}
    known = dict(case="success", word="we", start=0.9, end=1.1)
    for words, number in (([lost, known], 1), ([known, lost], 2), ([known, lost, lost, known], 2)):
        write(path, json.dumps({"transcript": "...", "words": words}))
        with pytest.raises(ValueError, match=rf"no time for word {number} \('so'\); align the utterance again"):
            read_word_json(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"segments": [{"text": "hi", "start": 0}]}', "a.json: holds no word times"),
        ('{"tiers": {"words": {"entries": [[0, 1]]}}}', "a.json: holds no word times"),
        ('{"words": \n', "a.json:2: not JSON"),
        ('{"text": "hi"}', "a.json: holds no word times; give"),
        ('[["hi", 0, 1], ["you", 1]]', r"a.json: word 2 is \['you', 1\]; give \[word, start, end\]"),
        ('[["hi", 0, "soon"]]', "a.json: word 1 is"),
        ("[[1, 2, 3]]", "a.json: word 1 is"),
        ('[{"word": "hi", "from": 0}]', "a.json: word 1 is"),
    ],
)
def test_bad_json_is_refused(tmp_path, content, message):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(ValueError, match=message):
        read_word_json(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'["\xe9"]')
    with pytest.raises(ValueError, match="a.json: not UTF-8 or UTF-16 text .*; save it as UTF-8"):
        read_word_json(path)


def test_alignments_are_found_beside_the_audio(tmp_path):
    audio = tmp_path / "u1.flac"
    assert find_alignment(audio, "u1") is None
    write(tmp_path / "u1.ctm", "corpus/u1 1 0 1 hello\n")
    assert find_alignment(audio, "corpus/u1") == [Word("hello", 0.0, 1.0)]
    write(tmp_path / "u1.json", '{"sampling_rate": 16000}')  # not an alignment
    assert find_alignment(audio, "corpus/u1") == [Word("hello", 0.0, 1.0)]
    write(tmp_path / "u1.json", json.dumps(PAIRS))
    assert find_alignment(audio, "u1")[1] == Word("cat", 0.5, 1.25)
    write(tmp_path / "u1.TextGrid", SHORT)
    assert match_words(find_alignment(audio, "u1"), "Hello!") == (Word("Hello!", 0.25, 1.5),)
    assert find_alignment(tmp_path / "u1.json", "u1")[1] == Word("cat", 0.5, 1.25)  # named itself
