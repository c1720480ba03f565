"""Trains the arms of configs/evidence.py, and shows what came of them: python launch/evidence.py --runs=A,F,B

| run | arms                                          | question                                            |
|-----|-----------------------------------------------|-----------------------------------------------------|
| A   | interleaved, control                          | does interleaving tie text to speech?               |
| F   | interleaved, shuffled_units, shuffled_times   | does that vanish where the pairs are torn apart?    |
| B   | asr_tts, interleaved                          | what do transcripts add?                            |
| C   | text, cold, warm                              | does a text model learn speech faster (TWIST)?      |
| D   | text, replay_0, replay_10, replay_30          | how much text keeps text?                           |
| E   | interleaved (MFCC, 100 units), mfcc_500,      | which units, how many, and with runs of equal ones  |
|     | mfcc_1000, mfcc_100_frames, whisper_100, ...  | joined or not (frames)?                             |

E needs the folder of openai/whisper-tiny.en: --whisper=FOLDER.

Real speech is that of Debian's English asterisk prompts, which `apt-get download` fetches into OUT/prompts unless they
are there. Runs lie in OUT/ARM-SEED; those that are done are not made again, and the same command goes on where it was
stopped. Tables and curves: OUT/RUN.md and OUT/RUN.svg. Arguments that are not listed below go to launch/train.py.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from jaxslm.data.records import Records
from jaxslm.evaluation.evidence import as_markdown, draw, read_arms, run_folder
from jaxslm.evaluation.split_clips import write_split_clips
from jaxslm.evaluation.topic_cloze import write_cloze
from jaxslm.suites.runs import records_of_run

RUNS = {
    "A": ("interleaved", "control"),
    "F": ("interleaved", "shuffled_units", "shuffled_times"),
    "B": ("asr_tts", "interleaved"),
    "C": ("text", "cold", "warm"),
    "D": ("text", "replay_0", "replay_10", "replay_30"),
    "E": (
        *("interleaved", "mfcc_500", "mfcc_1000", "mfcc_100_frames"),
        *("whisper_100", "whisper_500", "whisper_1000", "whisper_500_frames"),
    ),
}
MODES = ("S", "T", "S->T", "T->S")
LOSSES = {f"loss/{name}": f"{name} loss" for name in ("text", "speech", "interleaved", "asr", "tts")}
VOICES = ("baritone",)  # those of configs/evidence.py
STORIES = 500
PACKAGES = ("asterisk-core-sounds-en", "asterisk-core-sounds-en-g722")
CONFIG = Path(__file__).parent.parent / "configs" / "evidence.py"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", default="A,F,B", help=f"of {','.join(RUNS)}; default: A,F,B")
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--whisper", type=Path, help="folder of openai/whisper-tiny.en, for run E")
    flags, others = parser.parse_known_args()
    names, seeds = flags.runs.split(","), [int(seed) for seed in flags.seeds.split(",")]
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"there is no run {unknown[0]}; there are {', '.join(RUNS)}")
    if "E" in names and (flags.whisper is None or not (flags.whisper / "config.json").is_file()):
        parser.error("run E needs --whisper=FOLDER, as huggingface-cli download openai/whisper-tiny.en gives it")
    cloze = flags.out / "cloze"
    if not (cloze / f"{STORIES - 1}_incorrect.txt").is_file():
        write_cloze(cloze, STORIES, VOICES)
    fetch_prompts(flags.out / "prompts")
    for seed in seeds:
        for arm in dict.fromkeys(arm for name in names for arm in RUNS[name]):
            own = [f"--config.data.units.encoder={flags.whisper}"] if arm.startswith("whisper") else []
            train(flags.out, arm, seed, [*own, *others])
            for name in names:
                show(flags.out, name, seeds)


def fetch_prompts(folder: Path) -> None:
    if (folder / "usr").is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{error}: unpack the Debian packages {' and '.join(PACKAGES)} into {folder} yourself")


def train(out: Path, arm: str, seed: int, others: list[str]) -> None:
    """One run, unless it is done; warm starts from the run "text" of its seed."""
    workdir, train = run_folder(out, arm, seed), Path(__file__).parent / "train.py"
    if (workdir / "evaluations" / "storycloze.json").is_file():
        return
    words = [sys.executable, str(train), f"--config={CONFIG}:{arm}", f"--workdir={workdir}", f"--config.seed={seed}"]
    words += [
        f"--config.eval.suites.cloze.path={out / 'cloze'}",
        f"--config.data.sources.prompts.path={out / 'prompts'}",
    ]
    words += others
    if arm == "warm" or arm.startswith("replay"):
        words.append(f"--config.init_from={run_folder(out, 'text', seed)}")
    print(f"{arm}, seed {seed}", flush=True)
    run(words, arm, seed)
    score = [sys.executable, str(train.with_name("evaluate.py")), f"--workdir={workdir}"]
    modes = f"--modes={','.join(MODES)}"
    run([*score, "--suite=storycloze", f"--path={halves_of(out, workdir)}", modes, "--name=prompts"], arm, seed)
    run([*score, "--suite=storycloze", f"--path={out / 'cloze'}", modes], arm, seed)


def run(words: list[str], arm: str, seed: int) -> None:
    if (code := subprocess.run(words).returncode) != 0:
        sys.exit(f"{arm}, seed {seed} ended with {code}; the same command goes on from there")


def halves_of(out: Path, workdir: Path) -> Path:
    """Held-out prompts cut in two, by the word times of a run's data."""
    folder = out / "halves"
    if not folder.is_dir():
        clips = (
            u for u in Records(records_of_run(workdir), "") if u.id.startswith("prompts/") and u.split == "heldout"
        )
        partial = out / "halves.partial"
        write_split_clips(partial, clips)
        partial.rename(folder)
    return folder


def show(out: Path, name: str, seeds: list[int]) -> None:
    curves = read_arms(out, RUNS[name], seeds)
    parts = []
    for suite, about in (("storycloze", "synthetic stories"), ("prompts", "halves of recorded prompts")):
        figures = {f"{suite}/{kind}/mode={mode}": f"{mode} {kind}" for kind in ("sum", "mean") for mode in MODES}
        parts.append(f"{about}\n\n{as_markdown(curves, figures)}\n")
    parts.append(f"held-out losses\n\n{as_markdown(curves, LOSSES)}\n")
    (out / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")
    draw(curves, {f"suite/cloze/mode={mode}/sum": mode for mode in MODES}, 0.5, out / f"{name}.svg")


if __name__ == "__main__":
    main()
