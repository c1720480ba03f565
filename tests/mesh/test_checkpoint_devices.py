"""A state that is written on one mesh and read on another, up to a single device and back, keeps every bit: parameters,
both moments of Adam, counters and keys.
"""

import json

from tests.mesh.devices import run_on


def test_from_eight_devices_to_one_and_back_to_another_mesh(tmp_path):
    folders = [str(tmp_path / name) for name in "abcd"]
    pod, other = dict(data=1, fsdp=8), dict(data=2, fsdp=2, tensor=2)
    at_first = json.loads(run_on(8, "run_checkpoint", "train", folders[0], json.dumps(pod)))
    alone = json.loads(run_on(1, "run_checkpoint", "move", *folders[:2], json.dumps({})))
    moved = json.loads(run_on(8, "run_checkpoint", "move", *folders[1:3], json.dumps(other)))
    back = json.loads(run_on(8, "run_checkpoint", "move", *folders[2:], json.dumps(pod)))
    table = [f"{part}/table" for part in ("model", "opt_state/mu", "opt_state/nu")]
    assert {"opt_state/count", "step", "key", *table} <= set(at_first)
    for name in table:  # 32 tokens by 16 features, the tokens for tensor, the features for fsdp
        assert [states[name][0] for states in (at_first, alone, moved, back)] == [8, 1, 4, 8], name
    assert at_first["opt_state/mu/table"][1].startswith("bfloat16 ")
    bits = [{name: digest for name, (_, digest) in found.items()} for found in (at_first, alone, moved, back)]
    assert len(set(bits[0].values())) > 9  # nothing is all zeros still
    for found, where in zip(bits[1:], ("one device", "another mesh", "back"), strict=True):
        assert found == bits[0], where
