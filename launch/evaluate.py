"""Measures what was made: python launch/evaluate.py --suite=units --records=FOLDER --out=DIR

| suite                              | measures                                                                        |
|------------------------------------|---------------------------------------------------------------------------------|
| swuggy, sblimp, storycloze, salmon | accuracies of a language model by likelihood, on suites in their published form |
| jsonl                              | the same on pairs or multiple choice of one's own                               |
| forgetting                         | loss on text and accuracy on multiple choice, before and after training         |
| asr, tts                           | WER and CER of what a language model writes, and of what it says, by a judge    |
| genppl                             | perplexity of heard continuations by a text model, and auto-BLEU                |
| qa, stsp                           | spoken questions matched with answers; sentiment preservation                   |
| quality                            | a folder of recordings, by a judge such as DNSMOS                               |
| units                              | phone purity, PNMI, usage, bitrate, edit distance under changes, ABX of units   |
| codec                              | SI-SDR, mel and STFT distance, PESQ, STOI, ViSQOL by levels, bitrates, speed    |
| resynthesis                        | the same of acoustic stages and vocoders, from units; likeness of voices        |

The numbers are printed and written to files. `--suite=NAME --help` lists the options of a suite.
"""

import argparse
import importlib
import logging
import sys

LIKELIHOOD = ("swuggy", "sblimp", "storycloze", "salmon", "jsonl")
# suite -> module of jaxslm/suites, imported when it is asked for
SUITES = dict.fromkeys(LIKELIHOOD, "likelihood") | {
    name: name
    for name in ("forgetting", "asr", "tts", "genppl", "qa", "stsp", "quality", "units", "codec", "resynthesis")
}


def main() -> None:
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, add_help=False
    )
    parser.add_argument("--suite", choices=SUITES, required=True)
    if len(sys.argv) < 2 or sys.argv[1:] in (["-h"], ["--help"]):
        parser.print_help()
        return
    suite = importlib.import_module(f"jaxslm.suites.{SUITES[parser.parse_known_args()[0].suite]}")
    suite.add_arguments(parser)
    parser.add_argument("--help", action="help", help="show this message and exit")
    try:
        print(suite.run(parser.parse_args()))
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
