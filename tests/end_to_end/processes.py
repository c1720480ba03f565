"""Training processes of one run on this host's CPU: how they are started, awaited and compared."""

import json
import os
import subprocess
import sys

from tests.end_to_end.commands import ROOT, SMALL

RECIPES = {
    "spiritlm_7b": [
        *SMALL, "--config.samples.text_tokens=4", "--config.samples.speech_tokens=4", "--config.model.d_model=32",
        "--config.data.sources.speech.utterances=60", "--config.data.sources.text.utterances=80",
    ],
    "encodec_24k": [
        "--config.data.sources.speech.utterances=40", "--config.data.batch_size=4", "--config.data.seconds=0.1",
        "--config.model.dim=8", "--config.model.quantizer.codebook_size=16", "--config.model.quantizer.n_levels=2",
        "--config.losses.adversarial.start=2", "--config.losses.adversarial.delay=1",
        "--config.model.encoder.n_filters=2", "--config.model.decoder.n_filters=2",
    ],
}  # fmt: skip


def started(recipe: str, workdir, cache, devices: int, *arguments: str, **environment: str) -> subprocess.Popen:
    """A training process with `devices` CPU devices, its output in workdir's neighbour NAME.txt."""
    command = [
        sys.executable, "launch/train.py", f"--config=configs/{recipe}.py:tiny", *RECIPES[recipe],
        f"--workdir={workdir}", f"--config.data.cache={cache}", "--config.log_every=1",
        "--config.eval.every=2", "--config.eval.batches=1", "--config.samples.utterances=1", *map(str, arguments),
    ]  # fmt: skip
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    log = workdir.with_name(f"{workdir.name}-{environment.get('JAX_PROCESS_ID', 0)}.txt")
    with log.open("wb") as output:
        environment = os.environ | dict(JAX_PLATFORMS="cpu") | environment | dict(XLA_FLAGS=flags)
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment)


def expect_success(processes: list[subprocess.Popen], folder) -> None:
    """Waits for all; one that ends badly takes the others, which would wait for it, with it."""
    try:
        while any(process.poll() is None for process in processes) and not any(p.poll() for p in processes):
            for process in processes:
                try:
                    process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    pass
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    said = "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-4000:]}" for path in folder.glob("*.txt"))
    assert [process.returncode for process in processes] == [0] * len(processes), said


def losses(workdir) -> list[dict[str, float]]:
    """The losses of every row, training and held-out, in the order of steps."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    named = [{name: x for name, x in row.items() if "loss" in name or name == "step"} for row in rows]
    return sorted(named, key=lambda row: (row["step"], len(row), *row))
