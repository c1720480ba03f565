import argparse
from types import SimpleNamespace

import jax
import pytest

from jaxslm.benchmarks import lm_step, measure


def test_rows_are_packed_with_documents_of_unequal_lengths():
    arguments = argparse.Namespace(batch=3, length=100, segments=5, vocab_size=64)
    lengths = lm_step.document_lengths(arguments)
    assert lengths.shape == (3, 5) and (lengths.sum(axis=1) == 100).all() and lengths.min() > 0 < lengths.std()
    tokens, targets, positions, segment_ids = next(lm_step._batches(arguments))
    assert (tokens[:, 1:] == targets[:, :-1]).all()
    starts = positions == 0
    assert (starts.cumsum(axis=1) == segment_ids).all() and (starts.sum(axis=1) == 5).all()
    assert (positions.max(axis=1) + 1 == lengths.max(axis=1)).all()


def test_a_side_that_does_other_work_is_found():
    arguments = argparse.Namespace(vocab_size=32_512, d_model=4096)
    lm_step._check_first_loss("ours", 11.21, arguments)  # ln 32512 + 0.82
    for loss in (10.39, float("nan")):
        with pytest.raises(RuntimeError, match="the first loss of peer"):
            lm_step._check_first_loss("peer", loss, arguments)


def test_a_known_chip_has_its_rates(monkeypatch):
    h200 = SimpleNamespace(device_kind="NVIDIA H200", memory_stats=lambda: dict(peak_bytes_in_use=2**30))
    monkeypatch.setattr(jax, "local_devices", lambda: [h200])
    expected = dict(peak_flops=989e12, hbm_bandwidth=4800e9, device_peak_memory_mib=1024)
    assert measure.jax_device() == dict(device="NVIDIA H200") | expected
    monkeypatch.setattr(h200, "device_kind", "NVIDIA X")
    assert measure.jax_device() == dict(device="NVIDIA X", device_peak_memory_mib=1024) | dict.fromkeys(
        ("peak_flops", "hbm_bandwidth")
    )


def test_sides_on_two_devices_are_refused():
    with pytest.raises(RuntimeError, match="the peer on cpu"):
        measure.same_device(dict(device="NVIDIA H200"), dict(device="cpu"))


def test_the_flash_attention_of_torch_fits_transformers():
    """Forward and backward over shapes alone: its kernel is there on a GPU only."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    lm_step.register_torch_varlen()
    shape = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    heads = dict(num_attention_heads=4, num_key_value_heads=2, attn_implementation="torch_varlen")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **heads)).bfloat16()
        ids, ends = torch.zeros((1, 48), dtype=torch.long), torch.zeros(4, dtype=torch.int32)
        packing = dict(cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=32, max_length_k=32)
        logits = model(ids, position_ids=ids, use_cache=False, **packing).logits
    assert logits.shape == (1, 48, 64)
    logits.sum().backward()
    assert model.model.layers[0].self_attn.k_proj.weight.grad.shape == (16, 32)
