"""Rules, specs and their error messages; the meshes themselves are tested in tests/mesh."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from jaxslm.models.decoder import Decoder
from jaxslm.sharding import DEFAULT_RULES, Partitioner, make_partitioner
from tests.models.llama import tiny_config


def partitioner(sizes=(1, 4, 2, 1), **rules) -> Partitioner:
    mesh = jax.sharding.AbstractMesh(sizes, ("data", "fsdp", "tensor", "sequence"))
    return Partitioner(mesh, dict(DEFAULT_RULES) | rules)


def test_spec():
    p = partitioner()
    assert p.spec(("layers", "embed", "ffn"), (3, 32, 64)) == P(None, ("fsdp",), ("tensor",))
    assert p.spec(("batch", "length", None), (4, 6, 7)) == P(("data", "fsdp"), ("sequence",), None)
    assert p.spec(("batch", None), (3, 6), strict=False) == P(None, None)


def test_shardings_follow_the_structure_of_the_model():
    abstract = jax.eval_shape(lambda key: Decoder(tiny_config(), key), jax.random.key(0))
    shardings = partitioner().shardings(abstract)
    assert jax.tree.structure(shardings) == jax.tree.structure(abstract)
    assert shardings.layers.attention.key.weight.get_value().spec == P(None, ("fsdp",), ("tensor",))
    assert shardings.embedding.weight.get_value().spec == P(("tensor",), ("fsdp",))


def test_error_names_the_parameter():
    abstract = jax.eval_shape(lambda key: Decoder(tiny_config(d_ff=63), key), jax.random.key(0))
    with pytest.raises(
        ValueError, match="layers/feed_forward/.*: axis 'ffn' of size 63 is not divisible by the 2 shards"
    ):
        partitioner().shardings(abstract)


def test_bad_rules():
    with pytest.raises(ValueError, match="mesh axis 'tensor' would shard both 'embed' and 'ffn'"):
        partitioner(embed="tensor").spec(("embed", "ffn"), (32, 64))
    with pytest.raises(ValueError, match=r"unknown logical axis 'embedd'.* Did you mean embed\?"):
        partitioner().spec(("embedd",), (32,))


@pytest.mark.parametrize(
    "config, message",
    [
        (dict(data=3), "does not make up the 1 devices"),
        (dict(data=1, fsdp=2), "does not make up the 1 devices"),
        (dict(data=-1, fsdp=-1), "at most one is -1"),
        (dict(tensr=2), r"no axis 'tensr'.* Did you mean tensor\?"),
    ],
)
def test_bad_mesh(config, message):
    with pytest.raises(ValueError, match=message):
        make_partitioner(config, jax.devices()[:1])


def test_default_takes_all_devices():
    p = make_partitioner()
    assert p.mesh.shape["data"] == jax.device_count()
    assert p.batch_sharding().spec == P(("data", "fsdp"), ("sequence",))
