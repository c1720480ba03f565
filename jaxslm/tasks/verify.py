"""Compares an exported folder, as stock transformers loads it, with the run it came from.

Two things are compared apart. Weights and config.json, read back by hf/load.py, are those of the run, but for the
rounding to the export's type: every value, so that none can hide behind an input that does not use it. And with what
was read back the decoder computes what transformers does, both in float32: what differs there is the computation, not
the rounding of the export. Tokenizer, special ids and speech_tokenizer/ are held against the run's vocabulary.

Shape suffixes: B batch, T time, V vocabulary, N new tokens.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxslm.generation.sampler import Sampling, generate
from jaxslm.hf.export import special_ids
from jaxslm.hf.load import load_decoder, open_source
from jaxslm.hf.tensors import TABLES, TensorFolder
from jaxslm.hf.tokenizer_files import PROBES
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.naming import parameter_name
from jaxslm.tasks.base import SIDE_CAR, load_run_tokenizer, read_base_config
from jaxslm.tasks.export import load_vocabulary, unit_tokens
from jaxslm.training.checkpoint import restore_model
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import Vocabulary

# Of a logit, in float32. At some positions (ids never seen in training) rounding grows so much that transformers in
# float32 is further than that from itself in float64. An input that differs by more is computed in float64 on both
# sides, and what differs there is no rounding.
TOLERANCE = 1e-3
NEW_TOKENS = 64
LONG = 2048  # longest row that is compared


@dataclass(frozen=True)
class Report:
    """What was compared. `differences`: largest difference of a logit in float32, by input. `exact`: in float64, of the
    inputs that differ by more than TOLERANCE in float32. `problems`: what is not equal."""

    differences: Mapping[str, float]
    exact: Mapping[str, float]
    tensors: int
    greedy_tokens: int
    round_trips: int
    problems: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"  logits, {name:<28} {value:.2e}"
            + (f"  (in float64: {self.exact[name]:.2e})" if name in self.exact else "")
            for name, value in self.differences.items()
        ]
        lines.append(f"  parameters alike{'':<19} {self.tensors}")
        lines.append(f"  greedy tokens alike{'':<16} {self.greedy_tokens}")
        lines.append(f"  added tokens there and back{'':<8} {self.round_trips}")
        largest = max(self.exact.get(name, value) for name, value in self.differences.items())
        verdict = "equal" if self.equal else "NOT equal:\n  " + "\n  ".join(self.problems)
        return "\n".join([*lines, f"largest difference {largest:.2e} ({TOLERANCE:g} is allowed): {verdict}"])


def verify_export(workdir: Path, config: ConfigDict, folder: Path, step: int) -> Report:
    """Loads both and compares. Raises ValueError if transformers or torch is missing."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise ValueError(f"--verify needs torch and transformers ({error}): pip install -e '.[hf]'") from error
    vocabulary = load_vocabulary(workdir)
    model, tensors, problems = _read_back(workdir, config, vocabulary, folder, step)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if theirs.config.vocab_size != vocabulary.size or len(tokenizer) != vocabulary.size:
        problems.append(
            f"ids: {vocabulary.size} in the run, {theirs.config.vocab_size} rows and {len(tokenizer)} tokens exported"
        )
    longest = min(LONG, theirs.config.max_position_embeddings)
    if window := open_source(folder).sliding_window:  # the decoder looks at all; only further than any row it saw
        longest = min(longest, max(window, config.data.context_length))
    inputs = hard_inputs(vocabulary, longest)
    differences = {
        name: _largest(_logits(model, tokens)[..., : vocabulary.size], _their_logits(theirs, tokens))
        for name, tokens in inputs.items()
    }
    suspects = {name: inputs[name] for name, difference in differences.items() if not difference <= TOLERANCE}
    exact = _compare_exactly(model, folder, suspects, vocabulary.size) if suspects else {}
    problems += [f"logits of {name} differ by {value:.2e}" for name, value in exact.items() if not value <= TOLERANCE]
    greedy, problem = _compare_greedy(model, theirs, vocabulary, inputs["mixed modalities"][:, :32])
    problems += problem
    if greedy < NEW_TOKENS:
        problems.append(f"only {greedy} greedy tokens could be compared")
    trips, problem = _round_trips(tokenizer, vocabulary)
    problems += problem + _text_problems(tokenizer, load_run_tokenizer(workdir, config.data.tokenizer)[0])
    problems += _special_id_problems(folder, tokenizer, vocabulary, read_base_config(workdir))
    problems += _side_car_problems(folder / SIDE_CAR, vocabulary)
    return Report(differences, exact, tensors, greedy, trips, tuple(problems))


def _their_logits(model, tokens_BxT: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return model(torch.from_numpy(tokens_BxT)).logits.numpy()


def _largest(ours, theirs: np.ndarray) -> float:
    ours = np.asarray(ours)
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")


def _compare_exactly(model: Decoder, folder: Path, inputs: Mapping[str, np.ndarray], size: int) -> dict[str, float]:
    """Largest difference of a logit in float64, by input; what is left are the rotary frequencies, float32 there."""
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, local_files_only=True).eval()
    differences = {}
    with jax.enable_x64(True):
        wide = nnx.merge(*nnx.split(model))  # another module over the same arrays
        wide.config = dataclasses.replace(model.config, dtype="float64")
        for name, tokens_BxT in inputs.items():
            ours = _logits(wide, tokens_BxT)[..., :size]
            with mock.patch.object(torch, "float32", torch.float64):  # its norms go through a float32 by that name
                differences[name] = _largest(ours, _their_logits(theirs, tokens_BxT))
    return differences


def _read_back(
    workdir: Path, config: ConfigDict, vocabulary: Vocabulary, folder: Path, step: int
) -> tuple[Decoder, int, list[str]]:
    """(the exported model in our decoder, its parameters that are those of the checkpoint, what is not)."""
    size, padded = vocabulary.size, vocabulary.padded_size
    here = {"dtype": "float32", "remat": "none", "attention": "auto"}  # not what suits the machine of the run
    run_config = DecoderConfig(vocab_size=padded, **{**config.model, **here})
    source = open_source(folder)
    read_config, key = dataclasses.replace(run_config, **source.fields), jax.random.key(0)
    problems = [
        f"config.json means model.{name}={getattr(read_config, name)}, the run has {getattr(run_config, name)}"
        for name in source.fields
        if name != "output_bias" and getattr(read_config, name) != getattr(run_config, name)  # that may be of zeros
    ]
    model = load_decoder(source, Decoder(read_config, key), text_size=size, size=size, new_rows="mean", key=key)
    abstract = jax.eval_shape(functools.partial(Decoder, run_config), key)
    saved = _by_name(restore_model(workdir / "checkpoints", abstract, step)[0])
    stored, names, found = TensorFolder(folder), source.architecture.tensors(read_config), _by_name(model)
    for name, value in found.items():
        expected = saved.pop(name, np.zeros(value.shape, np.float32))
        if name in TABLES:
            rows = (slice(None), slice(size)) if name == "head/weight" else (slice(size),)
            value, expected = value[rows], expected[rows]
        offset = np.float32(source.architecture.norm_offset if name.endswith("/scale") else 0.0)
        rounded = (np.asarray(expected) - offset).astype(stored.dtype(names[name].format(0)))
        if not np.array_equal(value, rounded.astype(np.float32) + offset):
            problems.append(f"{name} is not that of the checkpoint")
    problems += [f"{name} is not exported" for name in saved]
    return model, len(found), problems


def _by_name(model: Decoder) -> dict[str, jax.Array]:
    return {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(model)}


def hard_inputs(vocabulary: Vocabulary, longest: int) -> dict[str, np.ndarray]:
    """int64 [B, T] by name: random ids of each block and of all, modalities that alternate, and one long row."""
    rng = np.random.default_rng(0)
    length = min(128, longest)
    inputs = {
        f"random {block.name} ids": rng.integers(block.first, block.stop, (2, length)) for block in vocabulary.blocks
    }
    inputs["random ids of every block"] = rng.integers(0, vocabulary.size, (4, length))
    spans = [
        [vocabulary.bos_id]
        + [int(i) for _ in range(length) for block in vocabulary.blocks for i in _span(rng, block)][: length - 1]
        for _ in range(2)
    ]
    inputs["mixed modalities"] = np.array(spans)
    inputs[f"a row of {longest}"] = rng.integers(0, vocabulary.size, (1, longest))
    return inputs


def _span(rng: np.random.Generator, block) -> np.ndarray:
    """A marker, or some ids of a modality."""
    return rng.integers(block.first, block.stop, 1 if block.name in ("markers", "tasks") else rng.integers(3, 12))


@jax.jit
def _logits(model: Decoder, tokens_BxT: jax.Array) -> jax.Array:
    positions_BxT = jnp.broadcast_to(jnp.arange(tokens_BxT.shape[1]), tokens_BxT.shape)
    hidden = model(tokens_BxT, positions_BxT=positions_BxT, segment_ids_BxT=jnp.ones_like(positions_BxT))
    return model.logits(hidden)


def _compare_greedy(model: Decoder, theirs, vocabulary: Vocabulary, prompt_BxT: np.ndarray) -> tuple[int, list[str]]:
    """(tokens alike, problems): NEW_TOKENS greedy tokens here and there, from the same prompts.

    A difference where their two best logits are closer than TOLERANCE is a tie that rounding decides; the rest of that
    row is not compared.
    """
    import torch
    from transformers import GenerationConfig

    allowed_V = np.arange(vocabulary.padded_size) < vocabulary.size
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0.0, top_p=1.0)
    mask = np.ones_like(prompt_BxT)
    ours_BxN, _ = generate(model, prompt_BxT, mask, jax.random.key(0), sampling, allowed_V=allowed_V, stop_ids=())
    how = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True, pad_token_id=0
    )
    theirs.generation_config = how  # not the exported one, which samples and stops
    with torch.inference_mode():
        out = theirs.generate(
            torch.from_numpy(prompt_BxT), attention_mask=torch.ones(prompt_BxT.shape), generation_config=how
        )
    theirs_BxN = out.sequences[:, prompt_BxT.shape[1] :].numpy()
    logits_NxBxV = torch.stack(out.logits).float().numpy()
    alike, problems = 0, []
    for row, (ours_N, theirs_N) in enumerate(zip(ours_BxN, theirs_BxN, strict=True)):
        different = np.flatnonzero(ours_N != theirs_N)
        alike += int(different[0]) if len(different) else len(ours_N)
        if len(different):
            second, best = np.sort(logits_NxBxV[different[0], row])[-2:]
            if best - second > TOLERANCE:
                at = different[0]
                problems.append(f"greedy token {at} of row {row}: {ours_N[at]} here, {theirs_N[at]} in transformers")
    return alike, problems


def _text_problems(theirs, ours) -> list[str]:
    """Texts of which the export's tokenizer makes other ids than the run's."""
    different = [t for t in PROBES if ours.has_text and theirs.encode(t, add_special_tokens=False) != ours.encode(t)]
    return [f"the text {text!r} has other ids" for text in different]


def _special_id_problems(folder: Path, tokenizer, vocabulary: Vocabulary, base: Mapping) -> list[str]:
    """Special ids in the folder that are not the run's. `base`: config.json of the model the run started from."""
    problems = []
    for file in ("config.json", "generation_config.json"):
        written = json.loads((folder / file).read_text())
        problems += [
            f"{file}: {name} is {written.get(name)}, the run means {ids}"
            for name, ids in special_ids(vocabulary, base, tokenizer.pad_token_id).items()
            if written.get(name) != ids
        ]
    problems += [
        f"tokenizer_config.json: {name} is {getattr(tokenizer, f'{name}_id')}, the run means {token_id}"
        for name, token_id in (("bos_token", vocabulary.bos_id), ("eos_token", vocabulary.eos_id))
        if getattr(tokenizer, f"{name}_id") != token_id
    ]
    return problems


def _side_car_problems(folder: Path, vocabulary: Vocabulary) -> list[str]:
    """What speech_tokenizer/ says of the units that the run does not."""
    sha256 = vocabulary.unit_inventory_sha256
    written = json.loads((folder / "units.json").read_text())
    problems = [
        f"{SIDE_CAR}/units.json: {name} is {written.get(name)}, the run has {value}"
        for name, value in unit_tokens(vocabulary).items()
        if written.get(name) != value
    ]
    try:
        found = UnitInventory.load(folder).sha256
    except ValueError as error:
        return [*problems, str(error)]
    if found != sha256:
        problems.append(f"{SIDE_CAR}/inventory.json: sha256 is {found}, the run has {sha256}")
    return problems


def _round_trips(tokenizer, vocabulary: Vocabulary) -> tuple[int, list[str]]:
    """(tokens tried, problems): every added token to its one id and back, alone and in a row of all."""
    added = [(b.first + i, b.token(i)) for b in vocabulary.blocks if b.name != "text" for i in range(b.size)]
    problems = []
    for token_id, token in added:
        ids = tokenizer.encode(token, add_special_tokens=False)
        if ids != [token_id] or tokenizer.decode(ids) != token:
            problems.append(f"{token} is {token_id} in the run and {ids} = {tokenizer.decode(ids)!r} in the export")
    everything = tokenizer.encode("".join(token for _, token in added), add_special_tokens=False)
    if everything != [token_id for token_id, _ in added]:
        problems.append("all added tokens in a row are not their ids in a row")
    return len(added), problems[:5]
