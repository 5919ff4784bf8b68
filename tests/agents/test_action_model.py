"""The network of Disco103's agents: the public one with the same weights, and what it refuses."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.action_model import ActionModel
from metadisco.agents.optimizers import DiscoAdam
from metadisco.envs.base import Box, Discrete, EnvSpec
from tests.golden import disco103_inputs as inputs

GOLDEN = Path(__file__).parents[1] / "golden" / "disco103.npz"
TORSO = ActionModel((8, 6), model_width=4, head_width=6)
SPEC = EnvSpec(Box((2, 5)), Discrete(3))
HEADS = {"logits": 3, "y": 5, "z": 15, "q": 21, "aux_logits": 9}
PUBLIC = {  # place in the agent's parameters -> public name
    ("torso", 0): "mlp/~_embedding_pass/torso/~/linear_0",
    ("torso", 1): "mlp/~_embedding_pass/torso/~/linear_1",
    ("root",): "mlp/linear",
    ("model",): "mlp/action_cond/linear",
    ("logits",): "mlp/~_head_pass/torso_head/~/linear_0",
    ("y",): "mlp/~_head_pass/torso_head_1/~/linear_0",
    **{
        (head, layer): f"mlp/{name}/~/linear_{number}"
        for head, name in (("z", "mlp"), ("aux_logits", "mlp_1"), ("q", "mlp_2"))
        for number, layer in enumerate(("hidden", "out"))
    },
}


def of_formula():
    agent_params = TORSO.init(jax.random.key(0), SPEC, HEADS)
    for place, name in PUBLIC.items():
        layer = agent_params
        for part in place:
            layer = layer[part]
        shapes = {f"{name}/w": layer["kernel"].shape, f"{name}/b": layer["bias"].shape}
        arrays = inputs.weights(shapes)
        layer["kernel"], layer["bias"] = jnp.asarray(arrays[f"{name}/w"]), jnp.asarray(arrays[f"{name}/b"])
    return agent_params


def test_outputs_are_those_of_the_public_network():
    outputs = jax.jit(TORSO.apply)(of_formula(), jnp.asarray(inputs.uniform("network/obs", (4, 2, 5))))
    with np.load(GOLDEN) as kept:
        for name, output in outputs.items():
            wanted = kept[f"network/{name}".replace("aux_logits", "aux_pi")]
            np.testing.assert_allclose(output, wanted.reshape(4, -1), rtol=1e-5, atol=1e-6, err_msg=name)


def test_steps_of_the_optimizer_are_the_public_ones():
    transformation = DiscoAdam(0.01, 0.5).transformation()
    state, steps = transformation.init(jnp.zeros(6)), []
    for i in range(4):
        step, state = transformation.update(jnp.asarray(inputs.uniform(f"gradient/{i}", (6,)) * 10.0**i), state)
        steps.append(step)
    with np.load(GOLDEN) as kept:
        np.testing.assert_allclose(np.stack(steps), kept["optimizer"], rtol=1e-5)
        assert np.abs(kept["optimizer"]).max() == np.float32(0.005)  # some are clipped


def test_a_meta_gradient_passes_through_the_optimizer_where_a_gradient_is_zero():
    transformation = DiscoAdam().transformation()

    def step(gradient):
        return jnp.sum(transformation.update(gradient, transformation.init(gradient))[0])

    slope = jax.grad(step)(jnp.array([0.0, 0.5]))
    assert np.all(np.isfinite(slope))


def test_indices_are_seen_one_hot():
    spec = EnvSpec(Discrete(4), Discrete(3))
    agent_params = TORSO.init(jax.random.key(0), spec, HEADS)
    by_index, by_vector = (
        TORSO.apply(agent_params, jnp.array([2, 0])),
        TORSO.apply(agent_params, jnp.eye(4)[jnp.array([2, 0])]),
    )
    jax.tree.map(np.testing.assert_array_equal, by_index, by_vector)


def test_continuous_actions_and_uneven_widths_are_refused():
    with pytest.raises(ValueError, match="use MLP"):
        TORSO.init(jax.random.key(0), EnvSpec(Box((4,)), Box((2,), -1.0, 1.0)), HEADS)
    with pytest.raises(ValueError, match="the head 'z' of 3 actions cannot have the width 16"):
        TORSO.init(jax.random.key(0), SPEC, HEADS | {"z": 16})
