"""What the loop asks of a kind of training. The loop knows nothing of speech; a task, nothing of files and signals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from jaxslm.training.metrics import Picture, Sound


def refuse_changed(name: str, saved: Any, current: Any) -> None:
    """The strictest `Task.check_artifact`: any difference is an error."""
    if saved != current:
        raise ValueError(f"{name} differs from the one this run was trained with; use a new --workdir.")


def no_import(model: Any, folder: Path) -> Any:
    """The `Task.import_model` of tasks that start from workdirs only."""
    raise ValueError(f"init_from={folder} is no workdir with checkpoints; name one.")


def no_export(step: int, folder: Path) -> None:
    """The `Task.export` of tasks that have none."""
    raise ValueError("this task has no export: set export.every=0.")


@dataclass(frozen=True)
class Task:
    """Functions of one kind of training.

    init: key -> state, every array made in its shards.
    step: (state, batch) -> (state, metrics), jitted, the state donated; metrics are float32 scalars on the device,
        among them `loss`, `skipped`, `skipped_in_a_row` and one `loss/<objective>` an objective; where it knows, 1 for
        `bad/<part>` of a step that was skipped because of it.
    batches: batches consumed so far -> iterator of the following ones, dicts of numpy arrays with this process's rows.
    batch_sharding: sharding of the first two dimensions of every array of a batch.
    abstract_state: () -> the state as ShapeDtypeStructs with shardings, into which a checkpoint is restored.
    evaluate: state -> held-out figures (loss, loss/<objective>...), the same on every process; {} if there are none.
    media: state -> sounds and pictures of held-out samples for TensorBoard, after each evaluation.
    samples: (state, folder to write in, step) -> text to print at the end of the run.
    artifacts: file name in the workdir -> JSON that gives the checkpoint its meaning, such as vocabulary.json.
    write_files: workdir -> None; process 0 puts there what the artifacts refer to, such as a unit inventory.
    import_model: (model, folder) -> the model with the parameters of a folder that is no workdir, for init_from.
    export: (checkpoint step, folder to write) -> None; writes the model for other programs from that checkpoint.
    check_artifact: (file name, saved, current) -> None; raises ValueError naming what changed.
    work_per_step: how much of `work` a step takes, over all devices; "tokens" or the like, in metrics `<work>_per_s`.
    flops_per_step: over all devices.
    loss_label: what the losses are measured in, on pictures; "" where each has a scale of its own.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[[Any, Any], tuple[Any, Mapping[str, jax.Array]]]
    batches: Callable[[int], Iterator[Any]]
    batch_sharding: jax.sharding.NamedSharding
    abstract_state: Callable[[], Any]
    work_per_step: float
    flops_per_step: float
    work: str = "tokens"
    loss_label: str = "loss (nats a token)"
    evaluate: Callable[[Any], Mapping[str, float]] = lambda state: {}
    media: Callable[[Any], Sequence[Sound | Picture]] = lambda state: ()
    samples: Callable[[Any, Path, int], str] = lambda state, folder, step: ""
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    write_files: Callable[[Path], None] = lambda workdir: None
    import_model: Callable[[Any, Path], Any] = no_import
    export: Callable[[int, Path], None] = no_export
    check_artifact: Callable[[str, Any, Any], None] = refuse_changed
