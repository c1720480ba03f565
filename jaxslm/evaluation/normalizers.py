"""How transcripts are made comparable before words are counted: by the package whisper-normalizer, a copy of Whisper's
own (Radford et al. 2022, App. C), or not at all."""

from collections.abc import Callable

from jaxslm.spelling import closest

NORMALIZERS = ("whisper-english", "whisper-basic", "none")


def normalizer(name: str) -> Callable[[str], str]:
    """The text as its words are counted: "whisper-english" writes numbers, spellings and contractions one way,
    "whisper-basic" (any language) drops case and punctuation, "none" changes nothing but white space.

    Raises ValueError for another name, or naming what to install.
    """
    if name not in NORMALIZERS:
        raise ValueError(f"there is no normalizer '{name}': use {', '.join(NORMALIZERS)}.{closest(name, NORMALIZERS)}")
    if name == "none":
        return lambda text: " ".join(text.split())
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise ValueError(f"the normalizer '{name}' needs whisper-normalizer: pip install 'jaxslm[evaluate]'") from error
    normalize = EnglishTextNormalizer() if name == "whisper-english" else BasicTextNormalizer()
    return lambda text: " ".join(normalize(text).split())
