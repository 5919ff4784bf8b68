"""PPO, DPO and learned drifts on environments that the drifts never saw, at several training horizons.

    python -m experiments.compare_drifts lpo-quick ta-lpo-quick

Every agent has the network, rollouts, optimizer and PPO settings of the environment, see
`metadisco/evaluation/environments.py`, and only the drift differs; all agents of an environment and horizon live the
same lives. Nothing is tuned here. The script can be stopped at any time and goes on where it was.
"""

import argparse
import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from experiments.pages import image_of, png
from metadisco.checkpoints import checkpoint
from metadisco.core import config, score_table
from metadisco.core.devices import prepare_jax
from metadisco.core.files import CheckpointError, write_atomically
from metadisco.core.provenance import provenance
from metadisco.evaluation import agents_under_test, environments, evaluation, results, stats, suites
from metadisco.objectives.drift import DPODrift, PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports import chart_style, plots

ENVIRONMENTS = ("Acrobot-v1", "Pendulum-v1", "brax-inverted_pendulum", "Breakout-MinAtar")
HORIZONS = (16, 64, 256)  # agent updates: shorter than in meta-training (24 to 96), within, and longer
NUM_POINTS = 8
COLORS = ("#6b7280", "#c85200", "#0072b2", "#8f4a86", "#007f5f", "#b58900")


def agents(names: list[str], envs: list[str]) -> dict[str, tuple]:
    """Objective and meta-parameters of all agents."""
    found = {"PPO": (MirrorLearning(PPODrift()), ()), "DPO": (MirrorLearning(DPODrift()), ())}
    for name in names:
        discovered = checkpoint.load(name)
        if not isinstance(discovered.objective, MirrorLearning):
            raise config.ConfigError(f"{name} is a {type(discovered.objective).__name__}, which has no drift")
        seen = {inner.env for inner in agents_under_test.trained_with(discovered)} & {
            suites.suite(e).build().env for e in envs
        }
        if seen:
            raise config.ConfigError(f"{name} was trained on {seen}; leave it out of --environments")
        label = Path(name).name if Path(name).name != "objective" else Path(name).parent.name
        if label in found:
            raise config.ConfigError(f"two agents are called {label}; rename a folder")
        found[label] = (discovered.objective, discovered.meta_params)
    if len(found) > len(COLORS):
        raise config.ConfigError(f"at most {len(COLORS) - 2} checkpoints can be told apart in the figure")
    return found


def measure(env: str, horizon: int, agent: str, objective, meta_params, known: argparse.Namespace) -> dict:
    """Returns [P + 1, S] of one agent on one environment, from the cache where they are there."""
    test_set = suites.suite(env).build(lifetime=horizon)
    inner = environments.with_objective(objective, test_set.inner)
    digest = _digest(inner, (meta_params, test_set.tasks))
    path = known.runs / f"{env}-{horizon}-{agent}-{digest}-{known.seeds}-{known.seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    evaluated = evaluation.evaluate(
        inner, meta_params, test_set, seed=known.seed, num_seeds=known.seeds, num_points=NUM_POINTS, slots=known.slots
    )
    row = {
        "returns": evaluated.returns[:, 0].tolist(),  # [P + 1, S]
        "env_steps": evaluated.env_steps,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(row).encode())
    return row


def _digest(inner, arrays) -> str:
    """Changes with all that a measurement depends on but the code."""
    content = f"{inner} {NUM_POINTS}".encode()
    content += b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(arrays))
    return hashlib.sha256(content).hexdigest()[:8]


def summarize(measured: dict) -> dict:
    """Means with 95% intervals over seeds, by environment, horizon and agent; IQM of scores by horizon and agent."""
    table: dict = {}
    for (env, horizon, agent), row in measured.items():
        ends = np.array(row["returns"][-1])
        interval = stats.mean_interval(ends)
        entry = {"mean": interval.point, "low": interval.low, "high": interval.high, "env_steps": row["env_steps"]}
        table.setdefault(env, {}).setdefault(str(horizon), {})[agent] = entry
    together: dict = {}
    for horizon in sorted({horizon for _, horizon, _ in measured}):
        for agent in dict.fromkeys(agent for _, _, agent in measured):
            scores = [
                _score(e, row["returns"][-1]) for (e, h, a), row in measured.items() if (h, a) == (horizon, agent)
            ]
            interval = stats.iqm_interval(np.array(scores))
            together.setdefault(str(horizon), {})[agent] = as_row(interval)
    return {"environments": table, "together": together}


def _score(env: str, returns: list) -> np.ndarray:
    chosen = environments.environment(env)
    return (np.array(returns) - chosen.random_return) / (chosen.upper_return - chosen.random_return)


def as_row(interval) -> dict:
    return {"iqm": interval.point, "iqm_low": interval.low, "iqm_high": interval.high}


def draw(measured: dict, num_seeds: int) -> bytes:
    """Learning curves: a row for each environment, a column for each horizon, as a PNG."""
    import matplotlib.pyplot as plt

    envs = list(dict.fromkeys(env for env, _, _ in measured))
    names = list(dict.fromkeys(agent for _, _, agent in measured))
    colors = dict(zip(names, COLORS, strict=False))
    with plt.rc_context(chart_style.STYLE):
        figure, panels = plt.subplots(
            len(envs), len(HORIZONS), figsize=(11, 2.3 * len(envs)), sharey="row", layout="constrained", squeeze=False
        )
        for (env, horizon, agent), row in measured.items():
            panel = panels[envs.index(env)][HORIZONS.index(horizon)]
            returns = np.array(row["returns"])
            x = np.linspace(0.0, row["env_steps"] / 1e3, len(returns))
            intervals = [stats.mean_interval(each) for each in returns]
            ends = (np.array([getattr(each, end) for each in intervals]) for end in ("point", "low", "high"))
            plots.draw_curves(panel, {agent: plots.Curve(x, *ends)}, colors)
            if envs.index(env) == 0:
                panel.set_title(f"{horizon} updates", fontsize=10, loc="left")
            if horizon == HORIZONS[0]:
                panel.set_ylabel(f"{env}\nmean return", fontsize=9)
            if envs.index(env) == len(envs) - 1:
                panel.set_xlabel("thousand environment steps", fontsize=9)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=9)
        figure.suptitle(
            f"Means of {num_seeds} agents with 95% intervals; the learning rate is annealed over each horizon",
            fontsize=10,
            x=0.01,
            ha="left",
        )
        content = png(image_of(figure, dpi=110))
        plt.close(figure)
    return content


def markdown(summary: dict) -> str:
    """The tables for the results page."""
    names = list(next(iter(summary["together"].values())))
    lines = []
    for env, horizons in summary["environments"].items():
        for horizon, rows in horizons.items():
            cells = [score_table.point(row["mean"], row["low"], row["high"], 1) for row in (rows[n] for n in names)]
            lines.append([env, horizon, *cells])
    for horizon, rows in summary["together"].items():
        cells = [score_table.with_interval(rows[name], digits=2) for name in names]
        lines.append(["all, IQM of scores", horizon, *cells])
    return score_table.markdown(score_table.Table(["environment", "updates", *names], lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", help="learned drifts: names in the zoo, or folders")
    parser.add_argument("--environments", nargs="*", default=list(ENVIRONMENTS), choices=environments.NAMES)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare_drifts"), help="where measurements are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where table and figure go")
    parser.add_argument("--seeds", type=int, default=16, help="agents of each kind [default: 16]")
    parser.add_argument("--seed", type=int, default=1000, help="of the agents [default: 1000]")
    parser.add_argument("--slots", type=int, default=4, help="agents side by side on one device [default: 4]")
    known = parser.parse_args()
    if known.seeds < 2 or not known.environments:
        parser.error("an interval needs --seeds of 2 or more, and there must be environments")
    prepare_jax()
    try:
        competing = agents(known.checkpoints, known.environments)
    except (config.ConfigError, CheckpointError) as error:
        parser.error(str(error))
    measured: dict = {}
    for env in known.environments:
        for horizon in HORIZONS:
            for agent, (objective, meta_params) in competing.items():
                row = measure(env, horizon, agent, objective, meta_params, known)
                measured[env, horizon, agent] = row
                print(f"{env} {horizon} {agent}: {np.mean(row['returns'][-1]):.1f}", flush=True)
    summary = summarize(measured)
    document = summary | {"seeds": known.seeds, "seed": known.seed, "provenance": provenance()}
    known.out.mkdir(parents=True, exist_ok=True)
    results.write_json(known.out / "compare_drifts.json", document)
    write_atomically(known.out / "compare_drifts.png", draw(measured, known.seeds))
    print(markdown(summary))


if __name__ == "__main__":
    main()
