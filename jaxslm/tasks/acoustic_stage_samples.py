"""What an acoustic stage makes of held-out clips: how many codes it reproduces, and how that sounds.

T frames of codes, L codes of a frame that the stage makes, K codes of a level, D model.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.acoustic.autoregressive import Stage, StageFacts, make_codes
from jaxslm.acoustic.sequences import coarse_prefix, fine_prefix
from jaxslm.audio.io import decode_clip, resample
from jaxslm.codec.codes import CodeSequence
from jaxslm.codec.identity import codec_sha256, n_levels_of
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.acoustic_layouts import frames_covered
from jaxslm.data.records import Records, Utterance
from jaxslm.evaluation.reconstructions import Recording
from jaxslm.tasks.codec_files import open_codec
from jaxslm.tasks.sounds import write_sounds
from jaxslm.vocabulary import Vocabulary

log = logging.getLogger(__name__)

CODEC, COARSE, GENERATED = "codec", "codec_coarse_codes", "generated"
_PAD = 128  # lengths of rows are multiples of it, so that few are compiled


@dataclass(frozen=True)
class CodedClip:
    """The beginning of an utterance, at most a crop long: units, one a frame, and codes [T, Q]."""

    utterance: Utterance
    units: np.ndarray
    codes: np.ndarray


def pick_coded(records: Records, vocabulary: Vocabulary, facts: StageFacts, most: int) -> list[CodedClip]:
    """The first held-out utterances with units and codes, or their beginnings; from the training data if none is held
    out."""
    chosen: dict[str, list[CodedClip]] = {"heldout": [], "train": []}
    for utterance in records:
        units = utterance.units.get(vocabulary.unit_inventory_sha256)
        codes = utterance.codes.get(vocabulary.codec_sha256)
        if units is None or codes is None or len(chosen[utterance.split]) >= most:
            continue
        n = int(frames_covered(facts.rates, units.durations.sum(), len(codes)))
        n = min(n, facts.crops.frames(facts.rates))
        if n > 1:  # one frame of them is the prompt
            told = units.expand()[: facts.rates.units_of(0, n)[1]]
            chosen[utterance.split].append(CodedClip(utterance, told, codes.ids[:n]))
        if len(chosen["heldout"]) >= most:
            break
    return chosen["heldout"] or chosen["train"]


def write_samples(
    state, folder: Path, step: int, *, clips: Sequence[CodedClip], vocabulary: Vocabulary, facts: StageFacts, codec: str
) -> str:
    """Makes the codes of each clip behind its first `prompt_seconds`, at most half of it; writes sound files and
    index.html into `folder`, if the folder `codec` still has the codec. Every process of the run calls it.

    Returns:
      The share of codes that are the clip's own, as text for the terminal: of those that the stage draws, and of those
      it thinks likeliest after the clip's own. By chance it would be 1/K.
    """
    if not clips:
        return "no clip to show samples of: none has units and codes of two frames or more"
    stage, (first, n_levels) = Stage(state.model, vocabulary, facts), facts.levels
    n_prompt = [max(1, min(int(facts.crops.prompt_seconds * facts.rates.codes), len(c.codes) // 2)) for c in clips]
    own = [clip.codes[:, first : first + n_levels] for clip in clips]
    told = [clip.units if facts.stage == "coarse" else clip.codes[:, :first] for clip in clips]
    given = [codes_TxL[:n] for codes_TxL, n in zip(own, n_prompt, strict=True)]
    made = make_codes(stage, told, given, n_frames=[len(clip.codes) for clip in clips], key=jax.random.key(step))
    likeliest = [likeliest_codes(stage, *pair) for pair in zip(told, own, strict=True)]
    lines = [f"{facts.stage} codes like the clip's own: drawn behind a prompt, likeliest after its own; by level"]
    for i, clip in enumerate(clips):
        n = n_prompt[i]
        shares = [(codes_TxL[n:] == own[i][n:]).mean(axis=0) for codes_TxL in (made[i], likeliest[i])]
        by_level = " ".join(f"{share:.0%}" for share in shares[1])
        seconds = f"{n / facts.rates.codes:.1f} s prompt of {len(own[i]) / facts.rates.codes:.1f} s"
        lines.append(
            f"  {clip.utterance.id} ({clip.utterance.split}), {seconds}: {shares[0].mean():.1%} drawn, "
            f"{shares[1].mean():.1%} likeliest ({by_level})"
        )
    if jax.process_index() == 0 and (opened := _opened(codec, vocabulary)):
        lines.append(_write_sounds(opened, clips, made, n_prompt, facts, folder, step))
    return "\n".join(lines)


def likeliest_codes(stage: Stage, told: np.ndarray, codes_TxL: np.ndarray) -> np.ndarray:
    """For each code the likeliest one of its level after all of the clip's own before it: int32 [T, L]."""
    vocabulary, (first, n_levels) = stage.vocabulary, stage.facts.levels
    prefix = coarse_prefix if stage.facts.stage == "coarse" else fine_prefix
    start = prefix(told, vocabulary)
    ids = [*start, *vocabulary.code_ids(codes_TxL, first).tolist()]
    row_1xN = np.zeros((1, -(-len(ids) // _PAD) * _PAD), np.int32)
    row_1xN[0, : len(ids)] = ids
    size, begin = vocabulary.codebook_size, vocabulary.block("codes").first + first * vocabulary.codebook_size
    found = _likeliest(stage.model, row_1xN, len(ids), len(start), begin, n_levels, size, len(codes_TxL))
    return np.asarray(jax.device_get(found), np.int32)


@jax.jit(static_argnums=(4, 5, 6, 7))
def _likeliest(model, row_1xN, n_ids, n_start, begin: int, n_levels: int, size: int, n_frames: int) -> jax.Array:
    columns_1xN = jnp.arange(row_1xN.shape[1])[None]
    hidden_1xNxD = model(row_1xN, positions_BxT=columns_1xN, segment_ids_BxT=(columns_1xN < n_ids).astype(jnp.int32))
    shape = n_frames, n_levels, hidden_1xNxD.shape[-1]
    hidden_TxLxD = jax.lax.dynamic_slice_in_dim(hidden_1xNxD[0], n_start - 1, n_frames * n_levels).reshape(shape)
    weights_DxLxK = model.unembedding()[:, begin : begin + n_levels * size].reshape(-1, n_levels, size)
    logits_TxLxK = jnp.einsum("tld,dlk->tlk", hidden_TxLxD, weights_DxLxK.astype(hidden_TxLxD.dtype))
    return jnp.argmax(logits_TxLxK, axis=-1)


def _opened(place: str, vocabulary: Vocabulary) -> Codec | None:
    try:
        codec, _ = open_codec(Path(place).expanduser())
    except (ValueError, OSError, RuntimeError) as error:
        log.warning("no sound files: %s", error)
        return None
    if codec_sha256(codec) != vocabulary.codec_sha256:
        log.warning("no sound files: %s has changed since the data were prepared", place)
        return None
    return codec


def _write_sounds(
    codec: Codec,
    clips: Sequence[CodedClip],
    made: Sequence[np.ndarray],
    n_prompt: Sequence[int],
    facts: StageFacts,
    folder: Path,
    step: int,
) -> str:
    """original, codec and generated of each clip that has audio, and a page with all of them; see `write_sounds`."""
    (first, n_levels), rate, originals = facts.levels, codec.config.sample_rate, []
    heard: dict[str, list[np.ndarray]] = {}
    for clip, made_TxL, n in zip(clips, made, n_prompt, strict=True):
        kinds = {CODEC: clip.codes, GENERATED: np.concatenate([clip.codes[:, :first], made_TxL], axis=1)}
        if facts.stage == "coarse":  # what the stage could reach at best
            kinds[COARSE] = clip.codes[:, :n_levels]
        sounds = {name: _decoded(codec, codes_TxQ) for name, codes_TxQ in kinds.items()}
        if not clip.utterance.audio or any(samples_N is None for samples_N in sounds.values()):
            continue
        original = decode_clip(clip.utterance.audio)
        original_N = resample(original.samples, original.rate, rate)[: len(clip.codes) * codec.hop]
        text = f"{clip.utterance.text} [prompt: the first {n / facts.rates.codes:.1f} s]".strip()
        originals.append(Recording(clip.utterance.id, original_N, text))
        for name, samples_N in sounds.items():
            heard.setdefault(name, []).append(samples_N[: len(original_N)])
    if not originals:
        return "no sound files: none of the clips has audio, or codes of whole levels"
    about = dict(units=facts.inventory, codec=facts.codec["name"])
    return write_sounds(originals, heard, rate, folder, step, scored=(CODEC, GENERATED), facts=about)


def _decoded(codec: Codec, codes_TxQ: np.ndarray) -> np.ndarray | None:
    """Samples of the codes of the first levels; None where so many codes are no number of whole levels."""
    per_level = codec.n_codebooks // n_levels_of(codec)
    if codes_TxQ.shape[1] % per_level:
        return None
    runner = CodecRunner(codec, codes_TxQ.shape[1] // per_level)
    return runner.decode([CodeSequence(codes_TxQ, codec.frame_rate, len(codes_TxQ) * codec.hop)])[0]
