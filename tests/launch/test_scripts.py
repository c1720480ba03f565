"""The launch scripts: what they would run, and, with stand-ins for the clusters' programs, what they do run."""

import signal
import subprocess
import sys
import time

import pytest

from tests.launch.stand_ins import ARGUMENTS, ROOT, StandIns, commands, needs_git

GIVEN = {
    "gpu_node.sh": [],
    "slurm.sh": ["--nodes=4"],
    "tpu_pod.sh": ["--name=pod", "--zone=z"],
    "gke/jobset.sh": ["--name=run", "--image=i", "--topology=8x8", "--volume=bucket:b"],
    "gke/xpk.sh": ["--cluster=c", "--zone=z", "--project=p", "--name=n", "--image=i", "--type=v5litepod-64"],
}
PROGRAMS = "nvidia-smi sbatch srun gcloud kubectl xpk python"


@pytest.fixture
def stand_ins(tmp_path):
    return StandIns(tmp_path)


@needs_git
@pytest.mark.parametrize("how", ["--dry-run", "DRY_RUN"])
@pytest.mark.parametrize("script", GIVEN)
def test_a_dry_run_touches_nothing(stand_ins, script, how):
    for program in PROGRAMS.split():
        stand_ins.add(program)
    before = {path: path.stat().st_mtime_ns for path in ROOT.iterdir()}
    if how == "DRY_RUN":
        done = stand_ins.launch(script, *GIVEN[script], "--", *ARGUMENTS, DRY_RUN="1")
    else:
        done = stand_ins.launch(script, *GIVEN[script], how, "--", *ARGUMENTS)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert stand_ins.calls() == [] and done.stdout
    assert {path: path.stat().st_mtime_ns for path in ROOT.iterdir()} == before


@pytest.mark.parametrize("script", GIVEN)
def test_help(stand_ins, script):
    done = stand_ins.launch(script, "--help")
    assert done.returncode == 0 and f"launch/{script}" in done.stdout and "-- --config=" in done.stdout


@pytest.mark.parametrize("script", GIVEN)
@pytest.mark.parametrize(
    "options, arguments, message",
    [
        (["--nope=1"], ARGUMENTS, "--nope"),
        (["word"], ARGUMENTS, "word"),
        (["--hardware=tpu_v9"], ARGUMENTS, "tpu_v9"),
        ([], ARGUMENTS[:1], "--workdir"),
        ([], ARGUMENTS[1:], "--config is missing after --; add --config=configs/FILE.py."),
        ([], [ARGUMENTS[0], "--workdir=gs://bucket/run"], "--workdir=gs://bucket/run"),
    ],
)
def test_mistakes_are_refused_by_name(stand_ins, script, options, arguments, message):
    done = stand_ins.launch(script, *GIVEN[script], *options, "--dry-run", "--", *arguments)
    assert done.returncode != 0 and not done.stdout and message in done.stderr, done.stderr


@pytest.mark.parametrize(
    "script, options, message",
    [
        ("gpu_node.sh", ["--gpus=a"], "--gpus=a must be numbers such as 0,1,2,3."),
        ("slurm.sh", ["--nodes=0"], "--nodes=0 must be a whole number from 1."),
        ("slurm.sh", [], "--nodes is missing; give --nodes=VALUE"),
        ("slurm.sh", ["--nodes=2", "--tasks=core"], "--tasks=core must be one of: gpu node."),
        ("slurm.sh", ["--nodes=2", "--time=soon"], "--time=soon must be such as"),
        ("slurm.sh", ["--nodes=2", "--hardware=tpu_v5e"], "--hardware=tpu_v5e must be one of: gpu_h100."),
        ("tpu_pod.sh", ["--name=pod"], "--zone is missing"),
        ("tpu_pod.sh", ["--name=pod", "--zone=z", "--do=sing"], "--do=sing must be one of: start logs stop."),
        ("gke/xpk.sh", [*GIVEN["gke/xpk.sh"], "--type=v6e-8"], "--type=v6e-8 is no slice of --hardware=tpu_v5e"),
    ],
)
def test_mistakes_of_one_script(stand_ins, script, options, message):
    done = stand_ins.launch(script, *options, "--dry-run", "--", *ARGUMENTS)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize("script", ["slurm.sh", "tpu_pod.sh", "gke/xpk.sh"])
def test_the_workdir_of_several_hosts_is_absolute(stand_ins, script):
    done = stand_ins.launch(script, *GIVEN[script], "--dry-run", "--", ARGUMENTS[0], "--workdir=runs/a")
    assert "--workdir=runs/a must be an absolute path, of a folder that every host sees." in done.stderr


@pytest.mark.parametrize(
    "script, program", [*zip(GIVEN, ["nvidia-smi", "sbatch", "gcloud", "kubectl", "xpk"], strict=True)]
)
def test_a_missing_program_is_named(stand_ins, script, program):
    for name in ("bash", "dirname", "basename", "sed", "awk", "env"):
        (stand_ins.bin / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    path = dict(PATH=str(stand_ins.bin), PYTHON=sys.executable)
    done = stand_ins.launch(script, *GIVEN[script], "--", *ARGUMENTS, **path)
    assert done.returncode == 2 and f"error: {program} is not on this machine: " in done.stderr


def test_a_gpu_node_trains_with_its_flags(stand_ins):
    stand_ins.add("nvidia-smi")
    stand_ins.add("python", 'echo "$CUDA_VISIBLE_DEVICES|$XLA_FLAGS|$XLA_PYTHON_CLIENT_MEM_FRACTION|$PWD"; exit 3')
    done = stand_ins.launch("gpu_node.sh", "--gpus=0,1", "--", *ARGUMENTS, XLA_FLAGS="--xla_dump_to=/d")
    assert stand_ins.calls() == [["python", "launch/train.py", *ARGUMENTS]]
    visible, flags, fraction, folder = done.stdout.strip().split("|")
    assert (visible, fraction, folder) == ("0,1", "0.92", str(ROOT)) and done.returncode == 3
    assert flags.startswith("--xla_gpu_") and flags.endswith(" --xla_dump_to=/d")  # the user's come last and win


def test_slurm_submits_a_task_for_each_gpu(stand_ins):
    stand_ins.add("sbatch", 'echo "$JAXSLM_STOPPED_STATUS|${JAX_LOCAL_DEVICE_IDS:-}"')
    stand_ins.add("mkdir")
    done = stand_ins.launch("slurm.sh", "--nodes=4", "--gpus=4", "--", *ARGUMENTS)
    assert done.returncode == 0 and done.stdout == "75|\n"
    call = stand_ins.calls()[-1]
    assert call[0] == "sbatch" and call[-6:] == [f"{ROOT}/launch/slurm_job.sh", "gpu_h100", *ARGUMENTS]
    for word in (
        "--nodes=4",
        "--ntasks-per-node=4",
        "--gres=gpu:4",
        "--requeue",
        "--signal=B:USR1@300",
        f"--chdir={ROOT}",
    ):
        assert word in call
    dry = commands(stand_ins.launch("slurm.sh", "--nodes=4", "--gpus=4", "--dry-run", "--", *ARGUMENTS).stdout)
    assert call in dry
    assert dry[-1][:4] == ["srun", "--kill-on-bad-exit=1", "--label", "bash"] and dry[-1][-4:] == ARGUMENTS


def test_slurm_with_a_task_for_each_node_gives_it_all_gpus(stand_ins):
    stand_ins.add("sbatch", 'echo "$JAX_LOCAL_DEVICE_IDS"')
    stand_ins.add("mkdir")
    done = stand_ins.launch("slurm.sh", "--nodes=2", "--gpus=4", "--tasks=node", "--", *ARGUMENTS)
    assert done.stdout == "0,1,2,3\n" and "--ntasks-per-node=1" in stand_ins.calls()[-1]


@pytest.mark.parametrize("status", [0, 1, 75, 134])
def test_a_slurm_job_is_queued_again_only_if_it_was_stopped(stand_ins, status):
    stand_ins.add("srun", f"exit {status}")
    stand_ins.add("scontrol")
    done = stand_ins.launch("slurm_job.sh", "gpu_h100", *ARGUMENTS, SLURM_JOB_ID="7", PYTHON="py")
    assert done.returncode == status
    step, *others = stand_ins.calls()
    assert step[4:] == ["launch/with_flags.sh", "gpu_h100", "py", "launch/train.py", *ARGUMENTS]
    assert others == ([["scontrol", "requeue", "7"]] if status == 75 else [])


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_slurm_job_reaches_its_processes(stand_ins, number):
    pid = stand_ins.folder / "pid"
    stand_ins.add("srun", f"trap 'sleep 0.3; exit 75' TERM\necho $$ >{pid}\nwhile :; do sleep 0.05; done")
    stand_ins.add("scancel", f"kill -TERM $(cat {pid})")
    stand_ins.add("scontrol")
    command = ["bash", str(ROOT / "launch/slurm_job.sh"), "gpu_h100", *ARGUMENTS]
    job = subprocess.Popen(command, env=stand_ins.environment | {"SLURM_JOB_ID": "7"}, stdout=subprocess.DEVNULL)
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.02)
    job.send_signal(number)
    assert job.wait(20) == 75
    assert stand_ins.calls()[1:] == [["scancel", "--signal=TERM", "7"], ["scontrol", "requeue", "7"]]


def test_xpk_replaces_an_ended_workload_and_restarts_on_what_a_stop_leaves(stand_ins):
    stand_ins.add("xpk")
    stand_ins.add("python", "pwd")
    assert stand_ins.launch("gke/xpk.sh", *GIVEN["gke/xpk.sh"], "--slices=2", "--", *ARGUMENTS).returncode == 0
    delete, create = stand_ins.calls()
    assert delete[1:3] == ["workload", "delete"] and "--filter-by-status=FINISHED" in delete
    assert {"--tpu-type=v5litepod-64", "--num-slices=2", "--restart-on-exit-codes=1,75,134,137,143"} <= set(create)
    command = create[-1].removeprefix("--command=").replace("cd /jaxslm", f"cd {ROOT}")
    subprocess.run(["sh", "-c", command], env=stand_ins.environment, check=True, capture_output=True)
    assert stand_ins.calls()[-1] == ["python", "launch/train.py", *ARGUMENTS]
