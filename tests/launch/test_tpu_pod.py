"""launch/tpu_pod.sh on a slice of two workers, which are two folders of this machine."""

import os
import time

import pytest

from tests.launch.stand_ins import ARGUMENTS, StandIns, needs_git

pytestmark = needs_git

GCLOUD = """
case $4 in
  scp) for i in 0 1; do cp "$5" "$SLICE/$i/jaxslm.tar.gz"; done ;;
  ssh)
    command=${!#}
    for i in 0 1; do
      cd "$SLICE/$i"
      HOME=$SLICE/$i WORKER=$i bash -c "${command#--command=}" 2>&1 | sed "s/^/$i: /"
      ((PIPESTATUS[0] == 0)) || exit 1
    done ;;
esac
"""
CURL = """
case ${!#} in
  *agent-worker-number) echo "$WORKER" ;;
  *worker-network-endpoints) echo "${ENDPOINTS:-10.0.0.5,10.0.0.6}" ;;
esac
"""
PYTHON = """
case $* in
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  launch/train.py*)
    export -p | grep -E 'JAX|LIBTPU' >"$HOME/environment"
    while [[ -e $SLICE/on ]]; do sleep 0.05; done ;;
esac
"""


@pytest.fixture
def slice_(tmp_path):
    stand_ins = StandIns(tmp_path)
    stand_ins.environment["SLICE"] = str(tmp_path)
    stand_ins.environment["TMPDIR"] = str(tmp_path)
    for name, script in {"gcloud": GCLOUD, "curl": CURL, "python3": PYTHON}.items():
        stand_ins.add(name, script)
    for index in "01":
        (tmp_path / index).mkdir()
    return stand_ins


def pod(slice_, *options, **environment):
    arguments = [] if "--do=stop" in options or "--do=logs" in options else ["--", *ARGUMENTS]
    return slice_.launch("tpu_pod.sh", "--name=pod", "--zone=z", *options, *arguments, **environment)


def trained(slice_, count):
    for _ in range(200):
        calls = [call for call in slice_.calls() if call[1] == "launch/train.py"]
        if len(calls) == count and all(noted(slice_.folder / i / "environment") for i in "01"):
            return calls
        time.sleep(0.05)
    raise AssertionError(slice_.calls())


def noted(file) -> bool:
    """Whether a stand-in has written all it writes, and not just begun."""
    return file.exists() and bool(file.read_text())


@pytest.mark.parametrize("endpoints", ["10.0.0.5,10.0.0.6", "n0:1:10.0.0.5,n1:2:10.0.0.6"])
def test_every_worker_trains_at_its_place(slice_, endpoints):
    done = pod(slice_, "--project=p", ENDPOINTS=endpoints)
    assert done.returncode == 0, done.stdout + done.stderr
    assert trained(slice_, 2) == [["python", "launch/train.py", *ARGUMENTS]] * 2
    assert all("--project=p" in call and "--worker=all" in call for call in slice_.calls() if call[0] == "gcloud")
    for index in "01":
        said = (slice_.folder / index / "environment").read_text()
        for word in (
            'ADDRESS="10.0.0.5:8476"',
            'NUM_PROCESSES="2"',
            f'PROCESS_ID="{index}"',
            'HOSTS="10.0.0.5,10.0.0.6"',
        ):
            assert word in said
        assert "--xla_tpu_overlap_compute_collective_tc=true" in said
        assert (slice_.folder / index / "jaxslm/jaxslm/training/loop.py").exists()
        assert f"{index}: " in done.stdout and f"process {index} of 2 started" in done.stdout


def test_a_second_start_is_refused_and_a_stopped_one_goes_on(slice_):
    on = slice_.folder / "on"
    on.touch()
    try:
        assert pod(slice_).returncode == 0
        trained(slice_, 2)
        again = pod(slice_)
        assert again.returncode != 0 and "a run is on already" in again.stdout
        assert "running" in pod(slice_, "--do=logs").stdout
        assert pod(slice_, "--do=stop").returncode == 0
        pids = [int((slice_.folder / index / "jaxslm.pid").read_text()) for index in "01"]
        for _ in range(100):
            if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
                break
            time.sleep(0.05)
    finally:
        on.unlink()
    assert "ended" in pod(slice_, "--do=logs").stdout and "nothing runs" in pod(slice_, "--do=stop").stdout
    assert pod(slice_).returncode == 0  # the same command
    assert len(trained(slice_, 4)) == 4


def test_an_old_python_is_refused(slice_):
    slice_.add("python3", "[[ $1 != -c ]]")
    done = pod(slice_)
    assert (
        done.returncode != 0 and "is older than 3.11: install a newer one on all workers and name it by" in done.stdout
    )
