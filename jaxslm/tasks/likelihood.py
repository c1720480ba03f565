"""Likelihood suites of a language model: while it is trained (config.eval.suites), and of a run that is done."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice
from jaxslm.evaluation.likelihood import Suite, as_table, score_suite
from jaxslm.evaluation.scoring import Scorer
from jaxslm.evaluation.suite_units import SOUND, units_of
from jaxslm.evaluation.suites import read_suite
from jaxslm.evaluation.wording import protocol, sounds, word_choice
from jaxslm.sharding import Partitioner
from jaxslm.tasks.lm_program import make_loss
from jaxslm.training.step import put_batch
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import Vocabulary

log = logging.getLogger(__name__)


def make_suite(
    name: str,
    choices: Sequence[Choice],
    *,
    vocabulary: Vocabulary,
    tokenizer: Any,
    inventory: UnitInventory | None,
    cache: Path,
    report: Report,
    score_end: bool = False,
) -> Suite:
    """The choices as token ids, without those that cannot be had, which the report names: that of the suite alone, with
    which they were read.

    Raises ValueError: units of another inventory than the vocabulary's, sounds where units cannot be made, or nothing
    left.
    """
    _check_inventory(name, choices, vocabulary.unit_inventory_sha256)
    heard = sounds(choices)
    if heard and (inventory is None or inventory.precomputed):
        raise ValueError(
            f"suite {name}: it has sounds, of which no units can be made here: a Hugging Face folder knows text alone, "
            "and precomputed units come with a run's data. Name a run that learned its units, or give the suite as "
            "JSON lines with `units`"
        )
    units = units_of(heard, inventory, cache, report) if heard else {}
    deduplicated = inventory.deduplicated if inventory else True
    how, kept, options = dict(deduplicated=deduplicated, score_end=score_end), [], []
    for choice in choices:
        try:
            options.append(word_choice(choice, vocabulary, tokenizer, units, **how))
        except KeyError:
            report.left_out(f"suite {name}, {choice.id}", "a sound of it cannot be read", what="choice")
            continue
        except ValueError as error:
            report.left_out(f"suite {name}", str(error), what="choice")
            continue
        kept.append(choice)
    if not kept:
        raise ValueError(f"suite {name}: none of its {len(choices)} choices can be scored\n{report.summary()}")
    said = protocol(vocabulary, kept, deduplicated, score_end)
    left_out = {what: n for what, n in report.left_out_by_kind().items() if what != SOUND}  # its choices are counted
    return Suite(name, kept, options, said, left_out)


def _check_inventory(name: str, choices: Sequence[Choice], sha256: str) -> None:
    for choice in choices:
        has_units = any(part.units is not None for row in (choice.context, *choice.options) for part in row)
        if has_units and not sha256:
            raise ValueError(
                f"suite {name}, {choice.id}: it has units, and this is a model of text alone: name the run that "
                "learned those units"
            )
        if has_units and choice.inventory != sha256:
            said = f"are of the inventory {choice.inventory[:12]}.." if choice.inventory else "name no inventory"
            raise ValueError(
                f"suite {name}, {choice.id}: its units {said}, those of this model are of {sha256[:12]}..: units of "
                'another mean other sounds. Give the sounds, or units of that inventory with "inventory": its SHA-256'
            )


def make_scorer(config: Mapping, vocabulary: Vocabulary, partitioner: Partitioner, *, rows: int) -> Scorer:
    """A scorer by the loss of a config's model. rows: of a batch, over all processes."""

    def make_sums(n: int):
        loss = make_loss(config, vocabulary.size, n, partitioner)
        return lambda model, batch: loss(model, batch)[1]

    sharding = partitioner.batch_sharding()
    return Scorer(
        make_sums,
        lambda batch: put_batch(batch, sharding),
        rows=rows,
        context=config["data"]["context_length"],
        unit=unit_of(partitioner),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def unit_of(partitioner: Partitioner) -> int:
    """What lengths of rows are a multiple of: what the kernels of accelerators take, and shards of the length."""
    shards = partitioner.constrain.n_shards("length")
    if partitioner.constrain.platform == "cpu":
        return math.lcm(32, shards)
    return 128 if shards == 1 else 256 * shards


def make_suites(config: Mapping, corpus: Any, partitioner: Partitioner):
    """`suites(model)`: accuracies on the likelihood suites of config.eval.suites, for a run of this corpus (see
    speech_text_lm.Corpus)."""
    if not config["eval"]["suites"]:
        return lambda model: {}
    how = dict(vocabulary=corpus.vocabulary, tokenizer=corpus.tokenizer, inventory=corpus.prepared.inventory)
    how |= dict(cache=Path(config["data"]["cache"]).expanduser())
    suites = []
    for name, spec in sorted(config["eval"]["suites"].items()):
        report = Report()
        suites.append(make_suite(name, read_suite(spec, report), **how, report=report))
    scorer = make_scorer(config, corpus.vocabulary, partitioner, rows=config["data"]["batch_size"])
    in_batches = [suite.batches(scorer) for suite in suites]

    def measure(model) -> dict[str, float]:
        figures = {}
        for suite, batches in zip(suites, in_batches, strict=True):
            scores = score_suite(suite, scorer, model, batches)
            log.info("%s", as_table(scores))
            figures |= scores.figures()
        return figures

    return measure
