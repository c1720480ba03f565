"""Prints the JobSet of a training run, launch/gke/jobset.yaml filled in; launch/gke/jobset.sh applies it.

Everything after -- goes to launch/train.py.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path
from string import Template

# What GKE calls the hardware, and how many chips a host of a slice of several hosts has.
ACCELERATORS = {"tpu_v5e": "tpu-v5-lite-podslice", "tpu_v5p": "tpu-v5p-slice", "tpu_v6e": "tpu-v6e-slice"}
CHIPS = 4
MOUNT = "/mnt/run"


def shape(topology: str, hardware: str) -> tuple[int, int]:
    """(hosts of a slice, chips of each). Raises ValueError."""
    sides = 3 if hardware == "tpu_v5p" else 2
    if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (sides - 1), topology):
        example = "2x4x4" if sides == 3 else "8x8"
        raise ValueError(f"--topology={topology}: {hardware} has {sides} sides, such as {example}.")
    chips = math.prod(map(int, topology.split("x")))
    if chips > CHIPS and chips % CHIPS:
        raise ValueError(
            f"--topology={topology} has {chips} chips; slices of several hosts have a multiple of {CHIPS}."
        )
    return max(chips // CHIPS, 1), min(chips, CHIPS)


def volume(given: str) -> tuple[dict[str, str], dict[str, object]]:
    """(annotations of the pod, its volume) for claim:NAME or bucket:NAME. Raises ValueError."""
    kind, _, name = given.partition(":")
    if kind == "claim" and name:
        return {}, {"name": "run", "persistentVolumeClaim": {"claimName": name}}
    if kind == "bucket" and name:
        attributes = {"bucketName": name, "mountOptions": "implicit-dirs"}
        source = {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}
        return {"gke-gcsfuse/volumes": "true"}, {"name": "run", "csi": source}
    raise ValueError(
        f"--volume={given} must be claim:NAME (a PersistentVolumeClaim) or bucket:NAME (of Cloud Storage)."
    )


def check_arguments(arguments: list[str]) -> None:
    """Raises ValueError if launch/train.py would."""
    if not any(word.startswith("--config=") for word in arguments):
        raise ValueError("--config is missing after --; add --config=configs/FILE.py.")
    workdir = next((word.removeprefix("--workdir=") for word in arguments if word.startswith("--workdir=")), "")
    if not workdir.startswith(f"{MOUNT}/"):
        raise ValueError(f"--workdir={workdir} must lie in {MOUNT}, where --volume is mounted.")


def render(flags: argparse.Namespace, arguments: list[str]) -> str:
    """The YAML. Raises ValueError for what the cluster would refuse."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", flags.name):
        raise ValueError(f"--name={flags.name} must be small letters, digits and dashes, 40 at most.")
    for name in ("slices", "grace", "init_timeout"):
        if getattr(flags, name) < 1:
            raise ValueError(f"--{name}={getattr(flags, name)} must be 1 or more.")
    if flags.max_restarts < 0:
        raise ValueError(f"--max_restarts={flags.max_restarts} must be 0 or more.")
    check_arguments(arguments)
    hosts, chips = shape(flags.topology, flags.hardware)
    annotations, source = volume(flags.volume)
    values = vars(flags) | dict(
        hosts=hosts, chips=chips, accelerator=ACCELERATORS[flags.hardware], mount=MOUNT, annotations=annotations,
        volume=source, arguments=[word.replace("$(", "$$(") for word in arguments],  # Kubernetes would fill in $(NAME)
    )  # fmt: skip
    # JSON is YAML: whatever is in an argument, the container gets that
    words = {name: value if isinstance(value, int) else json.dumps(value) for name, value in values.items()}
    return Template(Path(__file__).with_name("jobset.yaml").read_text()).substitute(words)


def main() -> None:
    own, arguments = sys.argv[1:], []
    if "--" in own:
        own, arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--name", required=True, help="of the JobSet")
    parser.add_argument("--image", required=True, help="built from launch/gke/Dockerfile")
    parser.add_argument("--hardware", choices=sorted(ACCELERATORS), default="tpu_v5e")
    parser.add_argument("--topology", required=True, help="of a slice, such as 8x8")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--volume", required=True, help=f"claim:NAME or bucket:NAME, mounted at {MOUNT}")
    parser.add_argument("--service_account", default="default", help="a bucket needs one that may write there")
    parser.add_argument("--max_restarts", type=int, default=100)
    parser.add_argument("--grace", type=int, default=120, help="seconds to save in; spot nodes give 25 at most")
    parser.add_argument("--init_timeout", type=int, default=1800, help="seconds for all hosts to come")
    try:
        print(render(parser.parse_args(own), arguments), end="")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
