"""The model card of an export: what was trained, on what, how, and how well."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxslm.vocabulary import Vocabulary

CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: {license}
{base_model}tags:
- speech
- jaxslm
---

# Speech+text language model

{parameters:,} parameters, {dtype}; trained by jaxslm for {step:,} steps of {tokens_per_step:,} tokens. {start}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
```

## Tokens

{blocks}

Speech is a sequence of units {unit_example}{dedup}, {frame_rate:g} frames a second, made by `{encoder}`, layer {layer}.
What the units mean is in `speech_tokenizer/` (SHA-256 `{inventory}`); any other inventory gives other sounds.

{formats}

## Data

{data}

Shares of the training tokens: {mixture}.

## Figures

{metrics}

## Made by

    {command}

jaxslm {version}{commit}; all settings are in `training_config.json`.

## Licence

{license_text}
"""
FORMATS = """| task | sequence |
|---|---|
| text, speech | `{bos}[Text]...`, `{bos}[Speech]{unit}...` |
| transcribe | `{bos}[Speech]{unit}...[ASR]` |
| speak | `{bos}[Text]...[TTS]` |"""


def model_card(
    *,
    config: ConfigDict,
    vocabulary: Vocabulary,
    step: int,
    parameters: int,
    dtype: str,
    inventory: Mapping[str, Any],
    bos: str,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, float],
    license: str,
) -> str:
    """README.md in the form of model hubs. `inventory` is inventory.json, `provenance` what the run noted of itself."""
    unit = vocabulary.block("units").token(3)
    blocks = [f"| {b.name} | {b.first} to {b.stop - 1} | `{_example(b)}` |" for b in vocabulary.blocks]
    named = [b.name for b in vocabulary.blocks]
    rows = [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    commit = provenance.get("commit", "")
    base = Path(config.init_from).name  # its place is one on this machine alone
    return CARD.format(
        license=license or "other",
        parameters=parameters,
        dtype=dtype,
        step=step,
        tokens_per_step=config.data.batch_size * config.data.context_length,
        base_model=f"base_model: {json.dumps(base)}\n" if base else "",
        start=f"It started from {base}." if base else "It started from random weights.",
        blocks="\n".join(["| block | ids | such as |", "|---|---|---|", *blocks]),
        unit_example=f"`{unit}`",
        dedup=" without repeats" if inventory["deduplicated"] else "",
        frame_rate=inventory["frame_rate"],
        encoder=inventory["encoder"],
        layer=inventory["layer"],
        inventory=vocabulary.unit_inventory_sha256,
        formats=FORMATS.format(unit=unit, bos=bos) if "tasks" in named else f"A sequence is `{bos}{unit}...`.",
        data="\n".join(_source(name, source) for name, source in config.data.sources.items()) or "Not named.",
        mixture=", ".join(f"{name} {share:.3g}" for name, share in config.data.mixture.items()),
        metrics="\n".join(["| | nats a token |", "|---|---|", *rows]) if rows else "None were kept.",
        command=provenance.get("command", "(the command was not noted)"),
        version=provenance.get("versions", {}).get("jaxslm", ""),
        commit=f", commit {commit}" if commit else "",
        license_text=f"That of the base model: {license}."
        if license
        else "Not stated: it follows from the data and the base model, if there is one.",
    )


def _example(block) -> str:
    return "..." if block.name == "text" else block.token(0)


def _source(name: str, source: Mapping[str, Any]) -> str:
    where = source.get("path") or source.get("name") or ""
    return f"- {name}: {source['kind']}{f' `{where}`' if where else ''}"
