"""The JobSet that launch/gke renders: what Kubernetes reads, and what is refused before it could."""

import subprocess
import sys

import pytest
import yaml

from tests.launch.stand_ins import ARGUMENTS, ROOT, StandIns

GIVEN = dict(name="run", image="host/image:1", topology="8x8", volume="claim:disk")


def rendered(arguments=ARGUMENTS, **options):
    words = [f"--{name}={value}" for name, value in (GIVEN | options).items()]
    command = [sys.executable, str(ROOT / "launch/gke/render.py"), *words, "--", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def job_of(**options):
    job = yaml.safe_load(rendered(**options).stdout)["spec"]["replicatedJobs"][0]
    return job["replicas"], job["template"]["spec"], job["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "options, accelerator, hosts, chips",
    [
        (dict(), "tpu-v5-lite-podslice", 16, 4),
        (dict(topology="2x2"), "tpu-v5-lite-podslice", 1, 4),
        (dict(topology="1x1"), "tpu-v5-lite-podslice", 1, 1),
        (dict(hardware="tpu_v5p", topology="2x4x4"), "tpu-v5p-slice", 8, 4),
        (dict(hardware="tpu_v6e", topology="16x16", slices=3), "tpu-v6e-slice", 64, 4),
    ],
)
def test_a_pod_for_each_host(options, accelerator, hosts, chips):
    slices, job, pod = job_of(**options)
    assert slices == options.get("slices", 1) and job["parallelism"] == job["completions"] == hosts
    selector = pod["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == accelerator
    assert selector["cloud.google.com/gke-tpu-topology"] == (GIVEN | options)["topology"]
    resources = pod["containers"][0]["resources"]
    assert resources["limits"] == resources["requests"] == {"google.com/tpu": chips}


def test_the_container_gets_the_arguments_as_they_are():
    *_, pod = job_of(arguments=[*ARGUMENTS, "--z=$(HOME) $name"])
    container = pod["containers"][0]
    assert container["command"] == ["bash", "launch/with_flags.sh", "tpu_v5e", "python", "launch/train.py"]
    assert container["args"] == [*ARGUMENTS, "--z=$$(HOME) $name"]  # which Kubernetes makes $(HOME) again
    assert {"name": "JAXSLM_STOPPED_STATUS", "value": "75"} in container["env"]
    assert 8476 in [port["containerPort"] for port in container["ports"]]


def test_volumes():
    _, job, pod = job_of()
    assert pod["volumes"][0] == {"name": "run", "persistentVolumeClaim": {"claimName": "disk"}}
    _, job, pod = job_of(volume="bucket:b")
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "b"
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert {"name": "run", "mountPath": "/mnt/run"} in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(topology="8x8x8"), "--topology=8x8x8: tpu_v5e has 2 sides, such as 8x8."),
        (dict(hardware="tpu_v5p"), "--topology=8x8: tpu_v5p has 3 sides, such as 2x4x4."),
        (dict(topology="3x3"), "--topology=3x3 has 9 chips; slices of several hosts have a multiple of 4."),
        (dict(volume="gs://b"), "--volume=gs://b must be claim:NAME"),
        (dict(name="A_run"), "--name=A_run must be small letters"),
        (dict(slices=0), "--slices=0 must be 1 or more."),
        (dict(max_restarts=-1), "--max_restarts=-1 must be 0 or more."),
        (dict(arguments=[ARGUMENTS[0], "--workdir=/data/run"]), "--workdir=/data/run must lie in /mnt/run, where"),
    ],
)
def test_mistakes_are_refused(options, message):
    done = rendered(**options)
    assert done.returncode == 1 and not done.stdout and message in done.stderr


@pytest.mark.parametrize("state, calls", [("", 1), ("Completed", 4), ("Failed", 4)])
def test_a_jobset_that_runs_is_left_alone_and_an_ended_one_replaced(tmp_path, state, calls):
    stand_ins = StandIns(tmp_path)
    stand_ins.add("kubectl", f'case $* in *jsonpath*) printf "%s" "{state}" ;; create*) cat >"{tmp_path}/yaml" ;; esac')
    options = [f"--{name}={value}" for name, value in GIVEN.items()]
    done = stand_ins.launch("gke/jobset.sh", *options, "--", *ARGUMENTS)
    verbs = [call[1] for call in stand_ins.calls()]
    if state:
        assert done.returncode == 0 and verbs == ["get", "get", "delete", "create"]
        assert (tmp_path / "yaml").read_text() == rendered().stdout
    else:
        assert done.returncode == 2 and verbs == ["get", "get"]
        assert "kubectl delete jobset run" in done.stderr


def test_a_new_jobset_is_created(tmp_path):
    stand_ins = StandIns(tmp_path)
    stand_ins.add("kubectl", "[[ $1 != get ]]")
    options = [f"--{name}={value}" for name, value in GIVEN.items()]
    assert stand_ins.launch("gke/jobset.sh", *options, "--", *ARGUMENTS).returncode == 0
    assert [call[1] for call in stand_ins.calls()] == ["get", "create"]
