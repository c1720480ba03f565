"""Judges by command: what they may print, and what is wrong with it."""

import sys
from pathlib import Path

import pytest

from jaxslm.evaluation.judges import SCORE, TEXT, ask


def judge(tmp_path, body: str) -> str:
    script = tmp_path / "a judge.py"  # a path with a space
    script.write_text(f"import json, sys\npaths = open(sys.argv[1]).read().splitlines()\n{body}\n")
    return f"'{sys.executable}' '{script}' {{list}}"


ECHO = "for p in reversed(paths): print(json.dumps(dict(audio_filepath=p, text=p[-1], score=len(p))))"
FILES = [Path("/x/a"), Path("/x/b c"), Path("/x/é")]


def test_answers_in_the_order_asked(tmp_path):
    assert ask(judge(tmp_path, ECHO), FILES, TEXT) == ["a", "c", "é"]
    assert ask(judge(tmp_path, ECHO), FILES, SCORE) == [4, 6, 4]


@pytest.mark.parametrize(
    "body, field, message",
    [
        ("sys.exit(3)", TEXT, "ended with 3"),
        ("print('hello')", TEXT, "line 1 is no .* 'hello'"),
        ("print(json.dumps(dict(audio_filepath=paths[0])))", TEXT, "line 1 is no"),
        ("print(json.dumps(dict(audio_filepath=paths[0], text=3)))", TEXT, "line 1: text is 3"),
        ('print(\'{"audio_filepath": "/x/a", "score": NaN}\')', SCORE, "line 1: score is nan"),
        ("print(json.dumps(dict(audio_filepath='/y', text='')))", TEXT, "is of /y, not asked of"),
        (f"{ECHO}\n{ECHO}", TEXT, "line 4 is of .*, twice"),
        ("", TEXT, "says nothing of 3 recordings, such as /x/a"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, body, field, message):
    with pytest.raises(ValueError, match=message):
        ask(judge(tmp_path, body), FILES, field)


def test_commands_that_cannot_be_run():
    with pytest.raises(ValueError, match="must have one of {list}"):
        ask("whisper", FILES, TEXT)
    with pytest.raises(ValueError, match="'no-such-judge' cannot be run"):
        ask("no-such-judge {list}", FILES, TEXT)


def test_a_text_with_a_line_separator_is_one_text(tmp_path):
    say = "for p in paths: print(json.dumps(dict(audio_filepath=p, text='a\\u2028b\\x85c'), ensure_ascii=False))"
    assert (
        ask(judge(tmp_path, f"sys.stdout.reconfigure(encoding='utf-8')\n{say}"), FILES, TEXT) == ["a\u2028b\x85c"] * 3
    )


def test_a_judge_of_one_recording_is_run_for_each(tmp_path):
    script = tmp_path / "one.py"
    script.write_text("import sys\nprint(sys.argv[1][-1] if sys.argv[2] == 'text' else len(sys.argv[1]))")
    command = f"'{sys.executable}' '{script}' {{wav}}"
    assert ask(f"{command} text", FILES, TEXT) == ["a", "c", "é"]
    assert ask(f"{command} score", FILES, SCORE) == [4, 6, 4]
    with pytest.raises(ValueError, match="prints no number of /x/a: 'a'"):
        ask(f"{command} text", FILES, SCORE)
    with pytest.raises(ValueError, match="/x/a text ended with 1; see"):
        ask(f"'{sys.executable}' -c 'import sys; sys.exit(1)' {{wav}} text", FILES, TEXT)
    with pytest.raises(ValueError, match="must have one of {list}"):
        ask(f"{command} {{list}}", FILES, TEXT)


def test_no_shell_sees_the_command(tmp_path):
    marker = tmp_path / "marker"
    command = judge(tmp_path, "assert sys.argv[2] == ';'\n" + ECHO)
    assert ask(f"{command} ; touch {marker}", FILES, TEXT) and not marker.exists()
