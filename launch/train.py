"""Trains a model: python launch/train.py --config=configs/spiritlm_7b.py:tiny --workdir=runs/spiritlm

Any value of the config can be set by --config.KEY=VALUE. The same command on the same workdir continues the run.
Several processes: set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES, JAX_PROCESS_ID on each (Slurm and GKE are
recognised), or use the scripts of launch/README.md.
"""

import sys

from jaxslm.commands import last_words, make_parser, parse
from jaxslm.training import distributed


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", required=True, help="folder of the run; made if need be")
    config, arguments = parse(parser)

    try:
        distributed.start()  # before anything asks JAX for devices
        from jaxslm.tasks.table import TASKS
        from jaxslm.training import goodput, loop, workdir
        from jaxslm.training.compiled import keep_programs

        loop.check_limits(config)  # here too: preparing the data can take hours
        folder = workdir.prepare(arguments.workdir)
        if config.task not in TASKS:
            raise ValueError(f"config.task is {config.task!r}; the tasks are {', '.join(TASKS)}")
        keep_programs(config.data.cache)
        with workdir.alone(folder), goodput.Goodput() as counting:
            task = TASKS[config.task](config, folder)
            workdir.write_provenance(folder, ["python", *sys.argv])
            steps = loop.run(task, config, folder, counting)
        if steps < config.steps:
            sys.exit(distributed.stopped_status())
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: ours, JAX's, or of a data worker that died
        sys.exit(last_words(error) + distributed.advice(error))


if __name__ == "__main__":
    main()
