"""A program that generates on four devices what one device generates, and says so; run by test_jax_sharding.py."""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fabula import FlaxAutoModelForCausalLM
from fabula.errors import ArgumentError

WAYS = ({}, {"num_beams": 2, "do_sample": True, "seed": 3})


def main(folder: Path) -> None:
    """Raises where something differs."""
    warnings.simplefilter("error")
    assert len(jax.devices()) == 4
    ids = jax.numpy.asarray(np.random.default_rng(0).integers(3, 250, (2, 10)))
    one = FlaxAutoModelForCausalLM.from_pretrained(folder)

    def texts(model: FlaxAutoModelForCausalLM, ways: int = 1) -> list[list[list[int]]]:
        calls = ({"max_new_tokens": 4, "pad_token_id": 0, **way} for way in WAYS[:ways])
        return [np.asarray(model.generate(ids, **call)).tolist() for call in calls]

    right, logits = texts(one, 2), np.asarray(one(ids).logits)
    for mesh in (Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model")), jax.make_mesh((4,), ("model",))):
        model = FlaxAutoModelForCausalLM.from_pretrained(folder)
        model.shard(mesh, "model")
        head = model.lm_head.weight.get_raw_value()
        assert head.sharding.shard_shape(head.shape)[0] == head.shape[0] // mesh.shape["model"]
        named = "data" in mesh.shape
        with nullcontext() if named else jax.set_mesh(mesh):
            ways = 2 if named else 1
            assert texts(model, ways) == right[:ways]
            assert np.abs(np.asarray(model(ids).logits) - logits).max() < 1e-4
        keys = model.engine.storage.state.keys[0]
        assert keys.sharding.shard_shape(keys.shape)[2] == keys.shape[2] // mesh.shape["model"]
    by_hand(folder, texts, right)
    try:
        one.shard(Mesh(np.array(jax.devices()), ("model",)), "heads")
    except ArgumentError as error:
        assert "`axis` must be one of ['model']" in str(error)
    else:
        raise AssertionError("an axis that there is not was taken")


def by_hand(folder: Path, texts, right) -> None:
    """Parameters that are put on the devices one by one, in a way of one's own."""
    model, mesh = FlaxAutoModelForCausalLM.from_pretrained(folder), Mesh(np.array(jax.devices()), ("model",))

    def put(x: jax.Array) -> jax.Array:
        cut = x.ndim > 1 and x.shape[-1] % 4 == 0
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*[None] * (x.ndim - 1), "model" if cut else None)))

    nnx.update(model, jax.tree.map(put, nnx.state(model)))
    assert texts(model) == right[:1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    print("equal")
