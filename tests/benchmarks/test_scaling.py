"""Weak scaling: what is kept of plans, and the picture."""

import json

from jaxslm.benchmarks import scaling
from tests.planning.test_report import plan


def test_kept_plans_are_drawn(tmp_path):
    for number, (shape, slices) in enumerate(
        [(shape, 1) for shape in scaling.SLICES["v5e"]] + [("8x8", n) for n in scaling.NUMBERS[1:]]
    ):
        record = scaling.record_of(plan(chips=8 * 2**number, slices=slices))
        (tmp_path / f"v5e-{shape}x{slices}.json").write_text(json.dumps(record))
    found = scaling.run(["--config=configs/spiritlm_7b.py:tiny", f"--folder={tmp_path}"])
    assert [each["chips"] for each in found["details"]["within"]] == [8, 16, 32, 64, 128, 256]
    assert [each["slices"] for each in found["details"]["between"]] == [1, 2, 4, 8]
    assert found["details"]["within"][0]["bytes"] == {"all-gather": 4_000_000_000}
    assert found["ratio"] == 8 / 256  # as many tokens in all, in this made-up case
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
