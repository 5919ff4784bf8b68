"""Make disco103.npz: what the public implementation says to the inputs of `disco103_inputs`.

    PYTHONPATH=CHECKOUT python -m tests.golden.make_disco103 --weights disco_103.npz

CHECKOUT is one of github.com/google-deepmind/disco_rl, with what it depends on installed. It was made at commit
9059a29f7121d60948f25ef165e08e050e9399c8.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.golden import disco103_inputs as inputs

FILE = Path(__file__).with_name("disco103.npz")


def nest(arrays):
    """The arrays of a file as Haiku has them: {module: {"w": ..., "b": ...}}."""
    found = {}
    for name, array in arrays.items():
        module, _, last = name.rpartition("/")
        found.setdefault(module, {})[last] = jnp.asarray(array)
    return found


def as_public(outputs):
    """Heads by their public names."""
    renamed = {name: jnp.asarray(array) for name, array in outputs.items()}
    renamed["aux_pi"] = renamed.pop("aux_logits")
    return renamed


def run(rule, settings, weights):
    """Results of the kept calls by name."""
    from disco_rl import types

    meta_params, hyper_params = nest(weights), settings.hyper_params.to_dict()
    key = jax.random.PRNGKey(0)
    state = rule.init_meta_state(key, as_public(inputs.rollout(0)["outputs"]))
    found = {}

    def loss(agent_out, rollout, told):
        given = rollout.replace(agent_out=agent_out)
        learned, log = rule.agent_loss(given, told, hyper_params, backprop=False)
        value, value_log = rule.agent_loss_no_meta(given, told, hyper_params)
        return jnp.mean(learned + value), (learned, value, log | value_log)

    for call in range(inputs.CALLS):
        drawn = inputs.rollout(call)
        params = as_public(drawn["outputs"])
        rollout = types.UpdateRuleInputs(
            observations=jnp.zeros((inputs.T + 1, inputs.B)),
            actions=jnp.asarray(drawn["action"]),
            rewards=jnp.asarray(drawn["reward"]),
            is_terminal=jnp.asarray(drawn["terminated"]),
            agent_out=params,
            behaviour_agent_out=as_public(drawn["behavior"]),
        )
        told, state = rule.unroll_meta_net(
            meta_params,
            params,
            None,
            state,
            rollout,
            hyper_params,
            lambda params, *_: (params, None),
            key,
            axis_name=None,
        )
        (_, (learned, value, log)), slope = jax.value_and_grad(loss, has_aux=True)(params, rollout, told)
        if call not in inputs.KEPT:
            continue
        ((memory,),) = (tuple(each.values()) for each in state["rnn_state"].values())
        moments = state["adv_ema_state"]
        results = {
            "pi_hat": told["pi"],
            "y_hat": told["y"][..., :: inputs.STRIDE],
            "z_hat": told["z"][..., :: inputs.STRIDE],
            "q": told["q_target"],
            "learned_loss": learned,
            "value_loss": value,
            "means": jnp.stack([log[name] for name in ("pi_loss", "aux_kl_loss", "q_loss")]),
            "memory": jnp.stack([memory.hidden, memory.cell]),
            "moments": jnp.stack([moments.moment1, moments.moment2, 1.0 - moments.decay_product]),
            "target_logits": state["target_params"]["logits"],
            "target_q": state["target_params"]["q"][..., :: 8 * inputs.STRIDE],
            "slope_logits": slope["logits"][:-1],
            "slope_y": slope["y"][:-1, ..., :: 4 * inputs.STRIDE],
            "slope_z": slope["z"][:-1, ..., :: 4 * inputs.STRIDE],
            "slope_q": slope["q"][:-1, ..., :: 4 * inputs.STRIDE],
            "slope_aux_logits": slope["aux_pi"][:-1],
        }
        found |= {f"{call}/{name}": np.asarray(array, np.float32) for name, array in results.items()}
    return found


def network():
    """Outputs of a small agent whose weights are of the formula."""
    from disco_rl.networks import nets
    from dm_env import specs

    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)  # noqa: E731
    net = nets.get_network(
        "mlp",
        action_spec=specs.BoundedArray((), np.int32, 0, 2),
        out_spec={"logits": shape(3), "y": shape(5)},
        model_out_spec={"z": shape(5), "aux_pi": shape(3), "q": shape(7)},
        dense=(8, 6),
        model_arch_name="lstm",
        head_w_init_std=1e-2,
        model_kwargs={"head_mlp_hiddens": (6,), "lstm_size": 4},
    )
    obs = jnp.asarray(inputs.uniform("network/obs", (4, 2, 5)))
    params, state = net.init(jax.random.PRNGKey(0), obs, None)
    names = sorted(f"{module}/{leaf}" for module, leaves in params.items() for leaf in leaves)
    shapes = {name: params[name.rpartition("/")[0]][name.rpartition("/")[2]].shape for name in names}
    outputs, _ = net.one_step(nest(inputs.weights(shapes)), state, obs, None)
    return {f"network/{name}": np.asarray(array) for name, array in outputs.items()}


def optimizer():
    """Steps of the public Adam on four gradients."""
    import optax
    from disco_rl import optimizers

    transformation = optax.chain(optimizers.scale_by_adam_sg_denom(), optax.clip(0.5), optax.scale(-0.01))
    state, steps = transformation.init(jnp.zeros(6)), []
    for i in range(4):
        gradient = jnp.asarray(inputs.uniform(f"gradient/{i}", (6,)) * 10.0**i)
        step, state = transformation.update(gradient, state)
        steps.append(np.asarray(step))
    return {"optimizer": np.stack(steps)}


def main():
    from disco_rl import agent
    from disco_rl.update_rules import disco

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="disco_103.npz")
    known = parser.parse_args()
    settings = agent.get_settings_disco()
    rule = disco.DiscoUpdateRule(**settings.update_rule)
    published = dict(np.load(known.weights))
    shapes = {name: array.shape for name, array in published.items()}
    found = network() | optimizer()
    for name, arrays in (("formula", inputs.weights(shapes)), ("published", published)):
        found |= {f"{name}/{part}": array for part, array in run(rule, settings, arrays).items()}
    np.savez_compressed(FILE, **found)
    print(f"{FILE.name}: {len(found)} arrays, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
