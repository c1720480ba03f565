"""Unit inventories that others have published: what they are made of, where their files lie, and how to open them.

Facts are those of the pages named as `source`; a SHA-256 is given where its authors give it, and "" elsewhere. Nothing
is downloaded here: users fetch the files and name them. Not listed, as no quantizer was published apart from the
weights: ContentVec (its 100 and 500 are classes of its training), Spin (its codebook is part of its checkpoint).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from jaxslm.spelling import closest
from jaxslm.units.encoders import Encoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.quantizers import LinearQuantizer, read_quantizer

_FAIR = "https://dl.fbaipublicfiles.com"
_TEXTLESS = "https://github.com/facebookresearch/textlesslib (textless/checkpoint_manager)"
_MIT = "MIT (fairseq, which says so of its models too)"
_EXPRESSO = "not stated; the Expresso data are CC BY-NC 4.0"


@dataclass(frozen=True)
class Weights:
    """A file as its authors publish it; sha256 is "" where they do not tell."""

    url: str
    sha256: str = ""


@dataclass(frozen=True)
class Published:
    """Attributes as of `UnitInventory`; encoder_weights and quantizer are the original files."""

    encoder: str
    layer: int
    size: int
    frame_rate: float
    encoder_weights: Weights
    quantizer: Weights
    licence: str
    source: str
    linear: bool = False
    deduplicated: bool = True
    model_type: str = "hubert"


_HUBERT = Weights(
    f"{_FAIR}/hubert/hubert_base_ls960.pt", "1703cf8d2cdc76f8c046f5f6a9bcd224e0e6caf4744cad1a1f4199c32cac8c8d"
)
_MHUBERT_3 = Weights(
    f"{_FAIR}/hubert/mhubert_base_vp_en_es_fr_it3.pt",
    "23527cd6311a6617bfa199f574e2eed478cd6a58a634f4007165c10ec0019832",
)
_MHUBERT_8 = Weights(
    f"{_FAIR}/hubert/mhubert_base_vp_mls_cv_8lang_it3.pt",
    "fa82eaccb557465f4732662e3a744c30c953059147ac6a4c92f1f3e0daeda61e",
)
_MHUBERT_25 = Weights(  # in safetensors: slprl/mhubert-base-25hz
    f"{_FAIR}/textless_nlp/twist/speech_tokenizer/mhubert_base_25hz_cp_mls_cv_sp_fisher.pt",
    "edf0f5be2581a568a236aeb2781a5607c5af25806e12f40f7f2391e861fe3cf0",
)


def _hubert(layer: int, size: int, path: str, sha256: str, licence: str = _MIT) -> Published:
    return Published(
        "hubert-base-ls960", layer, size, 50.0, _HUBERT, Weights(f"{_FAIR}/{path}", sha256), licence, _TEXTLESS
    )


def _mhubert_8(path: str, sha256: str, licence: str) -> Published:
    weights = Weights(f"{_FAIR}/{path}", sha256)
    return Published("mhubert-base-vp_mls_cv_8lang", 12, 2000, 50.0, _MHUBERT_8, weights, licence, _TEXTLESS)


PUBLISHED = {
    # Generative spoken language modelling (Lakhotia et al. 2021)
    "hubert-base-ls960-l6-k50": _hubert(
        6, 50, "textless_nlp/gslm/hubert/km50/km.bin",
        "d01a7d5bc2c54b7b5f25f321ba525b4d230b06e3927f90bad0394198bc89f494",
    ),
    "hubert-base-ls960-l6-k100": _hubert(
        6, 100, "textless_nlp/gslm/hubert/km100/km.bin",
        "f14a3104615485381fc489701d6761c9abbdbb0d43607cf55518a1e2891023fe",
    ),
    "hubert-base-ls960-l6-k200": _hubert(
        6, 200, "textless_nlp/gslm/hubert/km200/km.bin",
        "b3c46c9cdd1707ad852dd53c359aa73942e79d53c432a9a8a419ed046408024b",
    ),
    "hubert-base-ls960-l6-k500": _hubert(
        6, 500, "textless_nlp/gslm/hubert/km500/km.bin",
        "411c8668e1314751404f58636f935fc73540a6793890435da4a8ffadf157398e",
    ),
    "hubert-base-ls960-l9-k500": _hubert(
        9, 500, "hubert/hubert_base_ls960_L9_km500.bin",
        "4450dcbc90aa7d0553306a4b0fafef35c9b3c840468f02969273dfbb9db89a23",
    ),
    "hubert-base-ls960-l9-k2000-expresso": _hubert(
        9, 2000, "textless_nlp/expresso/checkpoints/hubert_base_ls960_L9_km2000_expresso.bin",
        "ae73e3cc7ea0426faf43c8bb67fc3846a0f8708232526d045a101836e8c7929f", _EXPRESSO,
    ),
    # Textless speech-to-speech translation (Lee et al. 2021), SpeechGPT
    "mhubert-base-vp_en_es_fr-l11-k1000": Published(
        "mhubert-base-vp_en_es_fr", 11, 1000, 50.0, _MHUBERT_3,
        Weights(
            f"{_FAIR}/hubert/mhubert_base_vp_en_es_fr_it3_L11_km1000.bin",
            "c70f5416c38044d0c20e33fdeedf4533974a8ac4029985cdef3b755038381a0b",
        ),
        _MIT, _TEXTLESS,
    ),
    "mhubert-base-vp_mls_cv_8lang-l12-k2000": _mhubert_8(
        "hubert/mhubert_base_vp_mls_cv_8lang_it3_L12_km2000.bin",
        "05de230870427dcdce334d29922ccce354c7e7d0574edc645f5daed47b1ccc18", _MIT,
    ),
    "mhubert-base-vp_mls_cv_8lang-l12-k2000-expresso": _mhubert_8(
        "textless_nlp/expresso/checkpoints/mhubert_base_vp_mls_cv_8lang_it3_L12_km2000_expresso.bin",
        "bda2dbf5fe42bf59359799b281498a9d7fd0a9ec703d6dc54a4a4a0ff70a4e22", _EXPRESSO,
    ),
    # TWIST (Hassid et al. 2023). Its units, like SpiRit-LM's, are timed at 24.99 a second, as SpiRit-LM's code has it.
    "mhubert-base-25hz-l11-k500": Published(
        "mhubert-base-25hz", 11, 500, 24.99, _MHUBERT_25,
        Weights(
            f"{_FAIR}/textless_nlp/twist/speech_tokenizer/mhubert_base_25hz_cp_mls_cv_sp_fisher_L11_km500.bin",
            "03cc04a9c24fec4285e73e709c485756d8f116aa8e724eac555de6a7cf8d28ad",
        ),
        "MIT (textlesslib)", _TEXTLESS,
    ),
    # SpiRit-LM (Nguyen et al. 2024): L11_quantizer_500.pt and its own copy of the encoder, on request
    "mhubert-base-25hz-l11-k501": Published(
        "mhubert-base-25hz", 11, 501, 24.99,
        Weights("https://ai.meta.com/resources/models-and-libraries/spirit-lm-downloads/"),
        Weights("https://ai.meta.com/resources/models-and-libraries/spirit-lm-downloads/"),
        "FAIR Noncommercial Research License", "https://github.com/facebookresearch/spiritlm (checkpoints/README.md)",
        linear=True,
    ),
    # dGSLM (Nguyen et al. 2022)
    "hubert-fisher-l12-k500": Published(
        "hubert-fisher", 12, 500, 50.0,
        Weights(f"{_FAIR}/textless_nlp/dgslm/checkpoints/hubert/hubert_fisher.pt"),
        Weights(f"{_FAIR}/textless_nlp/dgslm/checkpoints/hubert/hubert_fisher_km_500.bin"),
        _MIT, "https://github.com/facebookresearch/fairseq (examples/textless_nlp/dgslm/hubert_fisher)",
    ),
}  # fmt: skip


def find_published(name: str) -> Published:
    """The inventory of that name.

    Raises:
      ValueError: there is none; the message names the closest, or all.
    """
    if name not in PUBLISHED:
        hint = closest(name, PUBLISHED) or f" There are {', '.join(PUBLISHED)}."
        raise ValueError(f"there is no folder and no published inventory '{name}'.{hint}")
    return PUBLISHED[name]


def open_inventory(encoder: Encoder, quantizer_path: str | Path, *, published: str = "") -> UnitInventory:
    """An inventory from an encoder and a file of centroids or of a linear quantizer.

    Args:
      quantizer_path: for `read_quantizer`.
      published: name in PUBLISHED. What the files say must agree with it, and the SHA-256 of the original files where
        it is known: of a quantizer that is not converted to another form, of an encoder that `convert_speech` did.
    Raises:
      ValueError: files that do not fit together, or are not those of the published inventory.
    """
    known = find_published(published) if published else None
    quantizer = read_quantizer(quantizer_path)
    linear = isinstance(quantizer, LinearQuantizer)
    size, dim = (quantizer.size, quantizer.dim) if linear else quantizer.shape
    if dim != encoder.dim:
        raise ValueError(
            f"{quantizer_path} is for features of {dim} numbers, but {encoder.name} gives {encoder.dim}; "
            "take the quantizer that was made for this encoder"
        )
    identity = encoder.identity
    if known:
        _check(published, known, size, linear, Path(quantizer_path), encoder)
        identity |= dict(encoder=known.encoder, frame_rate=known.frame_rate)
    given = dict(centroids=None, linear=quantizer) if linear else dict(centroids=quantizer)
    return UnitInventory(**identity, **given, size=size, deduplicated=known.deduplicated if known else True)


def _check(name: str, known: Published, size: int, linear: bool, path: Path, encoder: Encoder) -> None:
    kind, frame_rate = encoder.name.rpartition("-")[0], encoder.frame_rate
    if (kind, encoder.layer) != (known.model_type, known.layer):
        raise ValueError(
            f"{name} is of layer {known.layer} of a {known.model_type} model ({known.encoder_weights.url}), but "
            f"units.encoder and units.layer give layer {encoder.layer} of {kind or encoder.name}; correct them"
        )
    if encoder.source_sha256 not in ("", known.encoder_weights.sha256) and known.encoder_weights.sha256:
        raise ValueError(
            f"{name} is of the encoder {known.encoder_weights.url} with SHA-256 {known.encoder_weights.sha256}, but "
            f"units.encoder was converted from a file of SHA-256 {encoder.source_sha256}; take that encoder"
        )
    if (size, linear) != (known.size, known.linear):
        form = {True: "a linear quantizer", False: "centroids"}
        raise ValueError(
            f"{path} holds {form[linear]} of {size} units, but {name} has {form[known.linear]} of {known.size}; "
            f"its file is {known.quantizer.url}"
        )
    if abs(frame_rate / known.frame_rate - 1) > 0.01:
        raise ValueError(f"{name} has {known.frame_rate:g} frames a second, but this encoder {frame_rate:g}")
    if path.suffix == Path(known.quantizer.url).suffix and known.quantizer.sha256:  # not converted to another form
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != known.quantizer.sha256:
            raise ValueError(
                f"{path} has SHA-256 {found}, but that of {name} is {known.quantizer.sha256}; "
                f"download {known.quantizer.url} again"
            )
