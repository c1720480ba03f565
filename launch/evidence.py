"""Trains the arms of configs/evidence.py, and shows what came of them: python launch/evidence.py --runs=A,F,B

| run | arms                                           | question                                              |
|-----|------------------------------------------------|-------------------------------------------------------|
| A   | interleaved, control                           | does interleaving tie text to speech?                 |
| F   | those of A, shuffled_units, shuffled_times     | does that vanish where the pairs are torn apart?      |
| B   | asr_tts, interleaved                           | what do transcripts add? WER of ASR and TTS           |
| C   | text, cold, warm, twist                        | does a text model learn speech faster, as it is or,   |
|     |                                                | as TWIST has it, with new tables of embeddings?       |
| D   | text, replay_0, replay_10, replay_30           | how much text keeps text?                             |
| E   | mfcc_100, mfcc_500, mfcc_1000,                 | which units, how many, and with runs of equal ones    |
|     | mfcc_100_frames, whisper_100, whisper_500,     | joined or not ("frames")? Needs the folder of         |
|     | whisper_1000, whisper_500_frames               | openai/whisper-tiny.en: --whisper=FOLDER              |
| R   | real_cold, real_warm of                        | C on two hours of recordings, from SmolLM2-135M:      |
|     | configs/evidence_twist.py                      | --smollm=FOLDER of HuggingFaceTB/SmolLM2-135M         |
| L   | large_interleaved, large_control,              | A and B larger, for an accelerator: from SmolLM2-135M |
|     | large_asr_tts of configs/evidence_large.py     | on recordings of your own, --recordings=MANIFEST      |

Recordings are those of Debian's asterisk prompts, English but in run R, which `apt-get download` fetches into
OUT/prompts unless they are there. Runs lie in OUT/ARM-SEED; those that are done are not made again, and the same
command goes on where it was stopped; several may work side by side, on other seeds. Seeds are those of weights and of
the order of data; the data and the units are the same. Tables and curves of all seeds that are there: OUT/RUN.md and
OUT/RUN.svg. Extras: `demo` and `asterisk`; for B `evaluate` and `judges`, or a judge by --judge, without which L does
not begin. --config.KEY=VALUE go to launch/train.py.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxslm.configure import load_config, read_config
from jaxslm.data.records import Records
from jaxslm.evaluation.evidence import as_markdown, draw, read_arms, run_folder, seeds_of
from jaxslm.evaluation.evidence_runs import RUNS
from jaxslm.evaluation.split_clips import write_split_clips
from jaxslm.evaluation.suites.storycloze import MODES
from jaxslm.evaluation.topic_cloze import write_cloze, write_domain
from jaxslm.locking import whole_folder
from jaxslm.suites.runs import records_of_run
from jaxslm.training.metrics import read_rows
from jaxslm.training.workdir import flat

WARM = ("warm", "replay_0", "replay_10", "replay_30")  # arms that begin from "text"
VOICES = ("baritone",)  # those of configs/evidence.py
STORIES, CLIPS = 500, 60
LANGUAGES = ("en", "es", "fr", "it", "ru")  # of run R
# recipe -> sources of which halves are asked, and word errors counted
RECORDED = {"evidence": ("prompts",), "evidence_large": ("prompts", "recordings"), "evidence_twist": ()}
COMPARED = ("seed", "steps", "optimizer", "model", "loss_chunks", "data")  # of the config: what an arm is
FREE = {"data.cache", "data.workers", "model.head_dim", "model.norm_eps", "model.rope_theta"}  # init_from says
HERE = Path(__file__).parent
JUDGE = f"{sys.executable} -m jaxslm.evaluation.whisper_judge {{list}}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", default="A,F,B", help=f"of {','.join(RUNS)}; default: A,F,B")
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--whisper", type=Path, help="folder of openai/whisper-tiny.en, for runs E, R and L")
    parser.add_argument("--smollm", type=Path, help="folder of HuggingFaceTB/SmolLM2-135M, for runs R and L")
    parser.add_argument("--recordings", type=Path, help="a manifest of English recordings, for run L")
    parser.add_argument("--judge", help="of runs B and L, with {list}; default for B: Whisper tiny.en")
    flags, others = parser.parse_known_args()
    names, seeds = flags.runs.split(","), [seed.strip() for seed in flags.seeds.split(",")]
    if wrong := [word for word in others if not (word.startswith("--config.") and "=" in word)]:
        parser.error(f"{wrong[0]} is neither an option of this program nor --config.KEY=VALUE")
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        parser.error(f"--seeds: {wrong[0]!r} is no whole number")
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"there is no run {unknown[0]}; there are {', '.join(RUNS)}")
    for option, model, runs in (
        ("whisper", "openai/whisper-tiny.en", "ERL"),
        ("smollm", "HuggingFaceTB/SmolLM2-135M", "RL"),
    ):
        folder = getattr(flags, option)
        if set(runs) & set(names) and (folder is None or not (folder / "config.json").is_file()):
            asked = " and ".join(name for name in names if name in runs)
            parser.error(f"run {asked}: --{option}=FOLDER, as huggingface-cli download {model} gives it")
    if "L" in names and not (flags.recordings and flags.recordings.is_file()):
        parser.error("run L: --recordings=FILE, a manifest of English recordings (jaxslm/data/sources/manifest.py)")
    if "L" in names and not flags.judge:
        parser.error("run L: --judge=COMMAND, of another model than Whisper tiny.en, whose units its arms are made of")
    make_suites(flags.out)
    fetch_prompts(flags.out / "prompts", LANGUAGES if "R" in names else LANGUAGES[:1])
    for seed in map(int, seeds):
        for arm, run in {arm: RUNS[name] for name in names for arm in RUNS[name].arms}.items():
            train(flags, run.recipe, arm, seed, others)
            if any(arm in RUNS[name].counted for name in names):
                count_errors(flags.out, run.recipe, arm, seed, flags.judge or JUDGE)
            if arm in WARM:
                measure_forgetting(flags.out, arm, seed)
            for name in names:
                show(flags.out, name)


def make_suites(out: Path) -> None:
    cloze, domain = out / "cloze", out / "domain"
    if not cloze.is_dir():
        with whole_folder(cloze) as new:
            write_cloze(new, STORIES, VOICES)
    if not domain.is_dir():
        with whole_folder(domain) as new:
            write_domain(new, cloze, STORIES)


def fetch_prompts(folder: Path, languages: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"asterisk-core-sounds-{language}{form}" for language in languages for form in ("", "-g722")]
    missing = [name for name in names if not (folder / "usr" / "share" / "doc" / name).is_dir()]
    try:
        for name in missing:
            subprocess.run(["apt-get", "download", name], cwd=folder, check=True)
            (package,) = folder.glob(f"{name}_*.deb")
            subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"{error}: unpack the Debian packages {', '.join(missing)} into {folder} yourself")


def train(flags: argparse.Namespace, recipe: str, arm: str, seed: int, others: Sequence[str]) -> None:
    """One run and its accuracies, unless it is done; warm starts of configs/evidence.py from the run "text" of its
    seed."""
    workdir = run_folder(flags.out, arm, seed)
    source, found = f"{HERE.parent / 'configs' / recipe}.py:{arm}", places(flags, recipe, arm, seed)
    values = [f"--config.{key}={value}" for key, value in found.items()]
    words = [f"--config.seed={seed}", *values, *others]
    check_same(workdir, source, words, found)
    if is_done(workdir, recipe):
        return
    print(f"{arm}, seed {seed}", flush=True)
    if arm == "twist" and not exported(flags.out, seed).is_dir():
        call("export_hf.py", f"--workdir={run_folder(flags.out, 'text', seed)}", f"--out={exported(flags.out, seed)}")
    call("train.py", f"--config={source}", f"--workdir={workdir}", *words)
    modes = f"--modes={'S' if arm == 'twist' else ','.join(MODES)}"
    for name in RECORDED[recipe]:
        evaluate(workdir, "storycloze", f"--path={halves_of(flags.out, workdir, name)}", modes, f"--name={name}")
    if recipe != "evidence_twist":
        evaluate(workdir, "storycloze", f"--path={flags.out / 'cloze'}", modes)


def check_same(workdir: Path, source: str, words: Sequence[str], places: Iterable[str]) -> None:
    """A try with other settings in a workdir is not taken for the run that is asked for."""
    if not (workdir / "config.json").is_file():
        return
    overrides = [tuple(word.removeprefix("--config.").split("=", 1)) for word in words]
    asked = dict(flat(json.loads(load_config(source, overrides).to_json_best_effort())))
    for name, old in flat(read_config(workdir).to_dict()):
        if name.split(".")[0] in COMPARED and name not in FREE.union(places) and asked.get(name) != old:
            cure = "remove that folder, or name another by --out"
            sys.exit(f"{workdir} was made with config.{name}={old}, not {asked.get(name)}: {cure}")


def is_done(workdir: Path, recipe: str) -> bool:
    if recipe == "evidence_twist":  # speech alone, of which no suite is asked
        rows = read_rows(workdir / "metrics.jsonl")
        return bool(rows) and rows[-1]["step"] >= read_config(workdir).steps
    return (workdir / "evaluations" / "storycloze.json").is_file()


def places(flags: argparse.Namespace, recipe: str, arm: str, seed: int) -> dict[str, Path]:
    """Where an arm finds its data and weights, by key of the config."""
    out, found = flags.out, {}
    if recipe == "evidence_twist":
        found = {f"data.sources.{language}.path": out / "prompts" for language in LANGUAGES}
    else:
        found = {"eval.suites.cloze.path": out / "cloze", "data.sources.prompts.path": out / "prompts"}
    if recipe == "evidence_large":
        found |= {f"data.sources.{name}.path": flags.recordings for name in ("recordings", "transcripts")}
        found |= {"data.tokenizer": flags.smollm}
    if recipe != "evidence" or arm.startswith("whisper"):
        found |= {"data.units.encoder": flags.whisper}
    if arm in WARM:
        found |= {"init_from": run_folder(out, "text", seed)}
    elif arm == "twist":
        found |= {"init_from": exported(out, seed)}
    elif recipe == "evidence_large" or arm == "real_warm":
        found |= {"init_from": flags.smollm}
    return found


def exported(out: Path, seed: int) -> Path:
    """The text model in Hugging Face's form, whose tables a run of other ids replaces."""
    return run_folder(out, "text", seed) / "hf"


def count_errors(out: Path, recipe: str, arm: str, seed: int, judge: str) -> None:
    """WER of transcripts and of what is said; an arm without those tasks is asked as interleaved data ask."""
    workdir = run_folder(out, arm, seed)
    prompt = "task" if arm.endswith("asr_tts") else "interleaved"
    for source in ("stories", *RECORDED[recipe]):
        folder = workdir / "evaluations" / source
        asked = dict(asr=["--max_new_tokens=200"], tts=["--max_new_tokens=450", f"--asr={judge}"])
        for suite, own in asked.items():
            if not (folder / f"{suite}.json").is_file():
                given = (f"--prefix={source}/", f"--clips={CLIPS}", f"--prompt={prompt}", f"--out={folder}")
                evaluate(workdir, suite, *given, *own)


def measure_forgetting(out: Path, arm: str, seed: int) -> None:
    workdir, domain = run_folder(out, arm, seed), out / "domain"
    if not (workdir / "evaluations" / "forgetting.json").is_file():
        texts = (f"--text={domain / 'stories.txt'}", f"--choices={domain / 'choices.jsonl'}")
        evaluate(workdir, "forgetting", f"--base={run_folder(out, 'text', seed)}", *texts)


def evaluate(workdir: Path, suite: str, *words: str) -> None:
    call("evaluate.py", f"--suite={suite}", f"--workdir={workdir}", *words)


def call(program: str, *words: str) -> None:
    command = [sys.executable, str(HERE / program), *words]
    if (code := subprocess.run(command, env=os.environ | {"JAXSLM_STOPPED_STATUS": "75"}).returncode) != 0:
        sys.exit(f"{program} {' '.join(words)} ended with {code}; the same command goes on from there")


def halves_of(out: Path, workdir: Path, source: str) -> Path:
    """Held-out clips of a source cut in two, by the word times of a run's data."""
    folder = out / "halves" / source
    if not folder.is_dir():
        clips = (u for u in Records(records_of_run(workdir), "") if u.id.startswith(f"{source}/"))
        with whole_folder(folder) as new:
            write_split_clips(new, (u for u in clips if u.split == "heldout"))
    return folder


def show(out: Path, name: str) -> None:
    run = RUNS[name]
    if not (curves := read_arms(out, run.arms, seeds_of(out, run.arms))):
        return
    parts = [f"{about}\n\n{as_markdown(curves, figures)}\n" for about, figures in run.tables.items()]
    (out / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")
    draw(curves, run.curves, out / f"{name}.svg")


if __name__ == "__main__":
    main()
