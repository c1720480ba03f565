"""A page in the browser to speak with trained models: python launch/demo.py --workdir=runs/spiritlm

Record or upload, type, choose what to do and in which voice; see and hear the answer. Needs the extra `demo`:
pip install -e '.[demo]'. The page is for this machine alone, unless --host says otherwise; it has no passwords.
"""

import argparse
import logging
import signal
import sys
import threading

from jaxslm.evaluation.demo_page import serving
from jaxslm.tasks.opening import add_runs, open_named
from jaxslm.training.checkpoint import CheckpointError

log = logging.getLogger(__name__)


def main() -> None:
    logging.basicConfig(format="%(message)s", force=True)
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_runs(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    flags = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        run(flags)
    except KeyboardInterrupt:
        pass
    except (ValueError, CheckpointError, OSError) as error:
        parser.exit(2, f"{error}\n")


def run(flags: argparse.Namespace) -> None:
    chain = open_named(flags.workdir, flags.acoustic, flags.step, language=False)
    with serving(chain, flags.host, flags.port) as address:
        log.info("open %s in a browser; Ctrl-C ends it", address)
        threading.Event().wait()


if __name__ == "__main__":
    main()
