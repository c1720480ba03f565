import argparse
import sys

import pytest

from jaxslm.acoustic.unmasking import Unmasking
from jaxslm.commands import add_unmasking, unmasking_of
from launch import evaluate


def given(*arguments):
    parser = argparse.ArgumentParser()
    add_unmasking(parser)
    return unmasking_of(parser.parse_args(arguments))


def test_how_codes_are_drawn_is_what_was_given_and_no_more():
    asked = given("--passes=12,1", "--guidance=0", "--code_temperature=0.3")
    assert Unmasking(**asked) == Unmasking(passes=(12, 1), guidance=0.0, temperature=0.3)
    assert given() == {} and given("--code_temperature=0") == {"temperature": 0.0}
    with pytest.raises(ValueError, match="--passes=12,a: give whole numbers"):
        given("--passes=12,a")


def test_what_no_run_has_is_refused(tmp_path, monkeypatch, capsys):
    command = ["evaluate.py", "--suite=resynthesis", f"--acoustic={tmp_path}", "--guidance=1", f"--out={tmp_path}/out"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        evaluate.main()
    assert "none of these is a masked stage, and has no guidance: leave it out" in capsys.readouterr().err
