"""The data of a run, found again."""

from pathlib import Path

from jaxslm.configure import read_config
from jaxslm.data.prepare import prepared_folder
from jaxslm.data.records import MANIFEST


def records_of_run(workdir: Path) -> Path:
    data_config = read_config(workdir).data
    folder = prepared_folder(data_config, Path(data_config.cache).expanduser())
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"the data of {workdir} are not in {folder}; name a folder of the same records by --records=FOLDER, or "
            "prepare them again by launch/prepare.py"
        )
    return folder
