"""Trains the arms of configs/evidence.py, and shows what came of them: python launch/evidence.py --runs=A,F,B

| run | arms                                          | question                                            |
|-----|-----------------------------------------------|-----------------------------------------------------|
| A   | interleaved, control                          | does interleaving tie text to speech?               |
| F   | interleaved, shuffled_units, shuffled_times   | does that vanish where the pairs are torn apart?    |
| B   | asr_tts, interleaved                          | what do transcripts add?                            |
| C   | text, cold, warm                              | does a text model learn speech faster (TWIST)?      |
| D   | text, replay_0, replay_10, replay_30          | how much text keeps text?                           |

Runs lie in OUT/ARM-SEED; those that are done are not made again, and the same command goes on where it was stopped.
Tables and curves: OUT/RUN.md and OUT/RUN.svg. Arguments that are not listed here go to launch/train.py.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from jaxslm.evaluation.evidence import as_markdown, draw, read_arms, run_folder
from jaxslm.evaluation.topic_cloze import write_cloze

RUNS = {
    "A": ("interleaved", "control"),
    "F": ("interleaved", "shuffled_units", "shuffled_times"),
    "B": ("asr_tts", "interleaved"),
    "C": ("text", "cold", "warm"),
    "D": ("text", "replay_0", "replay_10", "replay_30"),
}
MODES = ("S", "T", "S->T", "T->S")
LOSSES = {f"loss/{name}": f"{name} loss" for name in ("text", "speech", "interleaved", "asr", "tts")}
VOICES = ("baritone",)  # those of configs/evidence.py
STORIES = 500
CONFIG = Path(__file__).parent.parent / "configs" / "evidence.py"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", default="A,F,B", help=f"of {','.join(RUNS)}; default: A,F,B")
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    flags, others = parser.parse_known_args()
    names, seeds = flags.runs.split(","), [int(seed) for seed in flags.seeds.split(",")]
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"there is no run {unknown[0]}; there are {', '.join(RUNS)}")
    cloze = flags.out / "cloze"
    if not (cloze / f"{STORIES - 1}_incorrect.txt").is_file():
        write_cloze(cloze, STORIES, VOICES)
    for seed in seeds:
        for arm in dict.fromkeys(arm for name in names for arm in RUNS[name]):
            train(flags.out, arm, seed, others)
            for name in names:
                show(flags.out, name, seeds)


def train(out: Path, arm: str, seed: int, others: list[str]) -> None:
    """One run, unless it is done; warm starts from the run "text" of its seed."""
    workdir, train = run_folder(out, arm, seed), Path(__file__).parent / "train.py"
    if (workdir / "evaluations" / "storycloze.json").is_file():
        return
    words = [sys.executable, str(train), f"--config={CONFIG}:{arm}", f"--workdir={workdir}", f"--config.seed={seed}"]
    words += [f"--config.eval.suites.cloze.path={out / 'cloze'}", *others]
    if arm == "warm" or arm.startswith("replay"):
        words.append(f"--config.init_from={run_folder(out, 'text', seed)}")
    score = [sys.executable, str(train.with_name("evaluate.py")), "--suite=storycloze", f"--workdir={workdir}"]
    score += [f"--path={out / 'cloze'}", f"--modes={','.join(MODES)}"]
    print(f"{arm}, seed {seed}", flush=True)
    for command in (words, score):
        if (code := subprocess.run(command).returncode) != 0:
            sys.exit(f"{arm}, seed {seed} ended with {code}; the same command goes on from there")


def show(out: Path, name: str, seeds: list[int]) -> None:
    curves = read_arms(out, RUNS[name], seeds)
    figures = {f"storycloze/{kind}/mode={mode}": f"{mode} {kind}" for kind in ("sum", "mean") for mode in MODES}
    (out / f"{name}.md").write_text(as_markdown(curves, figures | LOSSES) + "\n", encoding="utf-8")
    draw(curves, {f"suite/cloze/mode={mode}/sum": mode for mode in MODES}, 0.5, out / f"{name}.svg")


if __name__ == "__main__":
    main()
