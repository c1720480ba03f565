"""A page about a run: python launch/report.py --workdir=runs/spiritlm [--workdir=runs/other ...] [--out=FILE]

One HTML file that needs nothing beside it: losses, suites, sounds, config, hardware, throughput and where the time
went. Several workdirs are compared: curves over each other, last figures, and what differs in config.
"""

import sys
from pathlib import Path

from jaxslm.commands import last_words, make_parser
from jaxslm.evaluation.run_report import report
from jaxslm.evaluation.run_samples import MOST_BYTES


def main() -> None:
    parser = make_parser(__doc__, config=False)
    parser.add_argument(
        "--workdir", type=Path, action="append", required=True, help="of a run; can be given many times"
    )
    parser.add_argument(
        "--out", type=Path, help="default: report.html in the workdir; of several, comparison.html in the first"
    )
    parser.add_argument(
        "--most_mb", type=float, default=MOST_BYTES / 1e6, help="MB of sound on the page; default: %(default)g"
    )
    flags = parser.parse_args()
    try:
        print(report(flags.workdir, flags.out, most_bytes=int(flags.most_mb * 1e6)))
    except (ValueError, OSError) as error:
        sys.exit(last_words(error))


if __name__ == "__main__":
    main()
