"""The report: what it says, that it needs nothing else, and that a browser shows it."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

from metadisco import reports
from metadisco.checkpoints import checkpoint
from metadisco.core import config
from metadisco.core.files import CheckpointError
from metadisco.curricula.randomization import DomainRandomization
from metadisco.envs.gridworld.dynamics import NUM_ACTIONS
from metadisco.evaluation import results, suites
from metadisco.evaluation.results import Evaluation
from metadisco.evaluation.stats import iqm_interval, normalize
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.objectives.drift import LPODrift
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports import chart_style, gallery, plots, sections
from metadisco.runs.run_folder import RunError
from tests.support import small

SECTIONS = ("scores", "training", "distribution", "learning", "history", "levels", "settings", "provenance")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROVENANCE = {
    "command": "metadisco discover quickstart",
    "date": "2026-01-31T12:00:00Z",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "versions": {"python": "3.11.2", "jax": "0.10.2"},
    "hardware": "2 x cpu, 2 CPU cores, x86_64",
    "preset": "quickstart",
    "seed": 7,
}


def evaluation(test_set, final_score, *, agent, num_seeds=2, num_points=8, seed=0):
    """Agents whose scores rise to about `final_score`, on the levels of a test set."""
    rng = np.random.default_rng(seed)
    num_tasks, fractions = test_set.num_tasks, np.arange(num_points + 1) / num_points
    talent = rng.normal(0, 0.12, (num_tasks, 1)) + rng.normal(0, 0.05, (num_tasks, num_seeds))
    rise = (1 - np.exp(-4 * fractions)) / (1 - np.exp(-4))
    scores = rise[:, None, None] * np.minimum(final_score + talent, 1.02)
    scale = test_set.upper_return - test_set.random_return
    returns = scores * scale[:, None] + test_set.random_return[:, None]
    middle = (fractions[1:] + fractions[:-1]) / 2
    spread = np.exp(rng.normal(0, 0.25, (1, num_tasks, num_seeds))) * (64 / test_set.lifetime) ** 0.1
    decline = 1.5 if agent == "discovered" else 0.8
    metrics = {
        "entropy": np.minimum(1.5 * np.exp(-decline * middle)[:, None, None] * spread, 1.6),
        "reward": rise[1:, None, None] * spread / 50,
    }
    if agent == "discovered":
        metrics |= {
            "pi_hat": 0.05 * np.sin(5 * middle)[:, None, None] * spread,
            "pi_hat_scale": (0.6 - 0.4 * middle)[:, None, None] * spread,
            "prediction_entropy": 2.0 * np.exp(-middle)[:, None, None] * spread,
            "prediction_kl": 0.2 * np.exp(-2 * middle)[:, None, None] * spread,
        }
    return Evaluation(
        suite=test_set.name,
        lifetime=test_set.lifetime,
        env_steps=640 * test_set.lifetime,
        is_exact=False,
        names=test_set.names,
        fractions=fractions,
        returns=returns,
        scores=normalize(returns, test_set.random_return, test_set.upper_return),
        metrics=metrics,
        agent_params={"logits": homing(test_set, 6)} if agent == "discovered" else {},
    )


def homing(test_set, num_levels):
    """Policies that walk toward the best object as the crow flies. [num_levels, S, A] logits."""
    env, level = test_set.env, test_set.tasks.level
    rows, columns = np.divmod(np.arange(env.num_cells), env.columns)
    logits = np.zeros((num_levels, 2**env.num_objects, env.num_cells, NUM_ACTIONS), np.float32)
    for i in range(num_levels):
        best = int(level.object_cell[i][np.argmax(np.where(level.object_cell[i] >= 0, level.reward[i], -np.inf))])
        down, right = best // env.columns - rows, best % env.columns - columns
        logits[i] = 0.8 * np.stack([-down, down, -right, right, 2.0 * ((down == 0) & (right == 0))], axis=1)
    return logits.reshape(num_levels, -1, NUM_ACTIONS)


def exact(test_set, expected_return):
    returns = np.broadcast_to(expected_return[:, None], (9, test_set.num_tasks, 2))
    scores = normalize(returns, test_set.random_return, test_set.upper_return)
    return Evaluation(
        test_set.name, test_set.lifetime, 0, True, test_set.names, np.arange(9) / 8, returns, scores, {}, {}
    )  # fmt: skip


def log(num_steps=120, validation=True):
    """Rows of a run that learns; one of them has no finite fitness."""
    rng = np.random.default_rng(1)
    for step in range(1, num_steps + 1):
        rise = 1 - np.exp(-3 * step / num_steps)
        row = {"step": step, "fitness": 0.17 + 1.4 * rise + rng.normal(0, 0.08), "agent_updates": 5120.0}
        row |= {"finite_fraction": 1.0, "seconds": 5.0 + 1.5 * 10 * -(-step // 10)}
        if validation and step % 20 == 0:
            row |= {"validation/iqm": 0.86 * rise, "validation/a2c_iqm": 0.79}
        yield row | ({"fitness": None, "finite_fraction": 0.5} if step == 30 else {})


def begin_run(folder, *, preset="quickstart", rows=(), trainer=small.trainer()):
    """What a run that is still going has."""
    folder.mkdir(parents=True)
    document = {"format_version": 1, "seed": 7, "trainer": config.to_data(trainer)}
    document["provenance"] = PROVENANCE | {"preset": preset}
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def end_run(folder, *, suite="grid-tiny", num_levels=8, scores=(("a2c", 0.75), ("discovered", 0.83))):
    """What the meta-test adds: two lifetimes of a suite."""
    outcome = {}
    for lifetime, bonus in ((None, 0.0), (4 * suites.suite(suite).lifetime, 0.06)):
        test_set = suites.suite(suite).build(lifetime, num_levels)
        outcome[test_set.name] = {
            "random": exact(test_set, test_set.random_return),
            **{
                agent: evaluation(test_set, score + bonus, agent=agent, seed=seed)
                for seed, (agent, score) in enumerate(scores)
            },
            "optimal": exact(test_set, test_set.upper_return),
        }
    results.write_json(folder / "evaluation.json", results.table(outcome))
    results.save_curves(folder / "curves.npz", outcome)
    (folder / "objective").mkdir()
    portable = {"provenance": PROVENANCE | {"minutes": 14.2, "meta_steps": 120, "trainer": {}}}
    (folder / "objective" / "objective.json").write_text(json.dumps(portable))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that is over, with its report."""
    folder = end_run(begin_run(tmp_path_factory.mktemp("runs") / "finished", rows=log()))
    reports.write(folder)
    return folder


@pytest.fixture(scope="module")
def page(run):
    return (run / "report.html").read_text()


@pytest.fixture
def unfinished(tmp_path):
    return begin_run(tmp_path / "unfinished", rows=log(num_steps=2, validation=False))


class Elements(HTMLParser):
    """Start tags of a page, and whether every one is closed."""

    VOID = frozenset({"meta", "img", "br", "hr", "line", "circle"})

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def section(page, name):
    return re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)[0]


def test_report_has_every_section_in_order(page):
    assert tuple(re.findall(r'<section id="(\w+)">', page)) == SECTIONS
    assert "could not be made" not in page
    assert 'class="missing"' not in page


def test_report_refers_to_nothing_outside(page):
    for tag, attributes in Elements(page).found:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
    assert not re.findall(r"url\((?!#)|@import|https?://", page)


def test_report_is_well_formed_and_names_are_unique(page):
    elements = Elements(page)
    assert not elements.open
    names = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in elements.found:
        for reference in re.findall(r"url\(#([^)]*)\)", " ".join(map(str, attributes.values()))):
            assert reference in names


def test_every_picture_has_a_description(page):
    pictures = [(tag, attributes) for tag, attributes in Elements(page).found if tag in ("img", "svg")]
    assert len(pictures) > 20
    for tag, attributes in pictures:
        assert attributes["alt" if tag == "img" else "aria-label"], (tag, attributes)


@pytest.mark.parametrize(
    ("baseline", "discovered", "words"),
    [
        (("a2c", 0.70, 0.75), (0.80, 0.86), "better than tuned A2C at 0.72 (0.70 to 0.75)."),
        (("a2c", 0.87, 0.89), (0.80, 0.86), "worse than tuned A2C at 0.88 (0.87 to 0.89)."),
        (("a2c", 0.85, 0.89), (0.80, 0.86), "not distinguishable from tuned A2C at 0.87 (0.85 to 0.89)."),
        (("a2c", 0.85, 0.89), (-0.1, 0.1), "; not distinguishable from the random policy."),
        (("a2c", 0.85, 0.89), (-0.3, -0.1), "; below random."),
        (("ppo", 0.70, 0.75), (0.80, 0.86), "better than tuned PPO at 0.72 (0.70 to 0.75)."),
    ],
)
def test_verdict_says_what_the_intervals_say(unfinished, baseline, discovered, words):
    def row(low, high):
        return {"iqm": (low + high) / 2 - 1e-9, "iqm_low": low, "iqm_high": high, "mean_return": 1.0, "num_tasks": 256}

    name, *ends = baseline
    agents = {name: row(*ends), "discovered": row(*discovered)}
    results.write_json(unfinished / "evaluation.json", {"grid-unseen": agents})
    verdict = re.search(r'<p class="verdict">(.*?)</p>', reports.write(unfinished).read_text())[1]
    assert "on 256 unseen levels" in verdict
    assert verdict.replace("\N{NO-BREAK SPACE}", " ").endswith(words)


def test_verdict_quotes_the_numbers_of_the_evaluation(run, page):
    row = json.loads((run / "evaluation.json").read_text())["grid-tiny"]["discovered"]
    quoted = f"IQM~{row['iqm']:.2f}~({row['iqm_low']:.2f}~to~{row['iqm_high']:.2f}) on 8 levels of grid-tiny"
    assert f"TA-LPG discovered in 3.1 min: {quoted}".replace("~", "\N{NO-BREAK SPACE}") in page
    assert "With 4 times the lifetime, on 8 levels: IQM" in page.replace("\N{NO-BREAK SPACE}", " ")


def test_suite_of_the_first_levels_is_compared_with_the_same_levels(unfinished):
    outcome = {}
    for name, num_levels, score in (("grid-unseen", 8, 0.83), ("grid-unseen-long", 6, 0.89)):
        test_set = suites.suite(name).build(num_levels=num_levels)
        outcome[name] = {
            agent: evaluation(test_set, score - worse, agent=agent, seed=seed)
            for seed, (agent, worse) in enumerate((("a2c", 0.1), ("discovered", 0.0)))
        }
    results.write_json(unfinished / "evaluation.json", results.table(outcome))
    results.save_curves(unfinished / "curves.npz", outcome)
    page = reports.write(unfinished).read_text().replace("\N{NO-BREAK SPACE}", " ")
    same = iqm_interval(outcome["grid-unseen"]["discovered"].scores[-1, :6])
    assert "With 4 times the lifetime, on 6 levels: IQM" in page
    quoted = f"{same.point:.2f} ({same.low:.2f} to {same.high:.2f})"
    assert f"; on these levels at lifetime 64 it is {quoted}.</p>" in page
    assert "Dashed: the discovered objective at lifetime 256 on 6 levels." in section(page, "history")


@pytest.mark.parametrize("a2c", [-0.2, 0.1, 0.9])
def test_line_of_a2c_is_inside_the_axes(a2c):
    steps, values = np.array([20, 40, 60]), np.array([0.3, 0.5, 0.6])
    low, high = plots.meta_training(steps, values, steps / 9, y_label="IQM", a2c=a2c).axes[0].get_ylim()
    assert low <= a2c <= high


def test_scores_show_every_suite_and_agent(run, page):
    scores = section(page, "scores")
    for suite, agents in json.loads((run / "evaluation.json").read_text()).items():
        assert suite in scores
        for agent, row in agents.items():
            assert chart_style.name(agent) in scores
            assert f"<td>{row['mean_return']:.3f}</td>".replace("-", "−") in scores


def test_scores_have_what_the_terminal_has(run, page):
    scores = section(page, "scores")
    for heading in ("worst 10%", "mean", "optimality gap ↓", "mean return"):
        assert f'<th scope="col">{heading}</th>' in scores
    row = json.loads((run / "evaluation.json").read_text())["grid-tiny"]["discovered"]
    for name in ("cvar", "mean_score", "optimality_gap"):
        assert f"<td>{row[name]:.3f}</td>".replace("-", "−") in scores


def test_the_yardstick_is_the_strongest_of_the_hand_written(unfinished):
    scores = {"a2c": 0.7, "ppo": 0.9, "dpo": 0.8, "discovered": 0.85, "random": 0.0, "optimal": 1.0}
    agents = {
        agent: {"iqm": score, "iqm_low": score - 0.01, "iqm_high": score + 0.01, "is_exact": score in (0.0, 1.0)}
        for agent, score in scores.items()
    }
    results.write_json(unfinished / "evaluation.json", {"grid-unseen": agents})
    text = reports.write(unfinished).read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "worse than tuned PPO at 0.90 (0.89 to 0.91), the strongest of A2C, PPO and DPO." in text
    with_bonus = {"a2c": agents["a2c"], "a2c-count": agents["dpo"], **agents}
    results.write_json(unfinished / "evaluation.json", {"grid-unseen": with_bonus})
    text = reports.write(unfinished).read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "the strongest of A2C, A2C + bonus of counts, PPO and DPO." in text


def test_levels_are_compared_with_the_strongest_of_the_hand_written(run, tmp_path):
    outcome = results.load_curves(run / "curves.npz")
    weaker = outcome["grid-tiny"]["a2c"]
    agents = outcome["grid-tiny"] | {"ppo": replace(weaker, scores=weaker.scores + 0.1)}
    page = str(sections.distribution({"grid-tiny": agents}))
    assert "Discovered objective ahead of tuned PPO on" in page
    assert "Discovered objective ahead of tuned A2C on" not in page


def row_of(score, **further):
    ends = {"iqm": score, "iqm_low": score - 0.1, "iqm_high": score + 0.1, "num_tasks": 8, "num_seeds": 2}
    return ends | further


@pytest.mark.parametrize(
    ("agents", "words"),
    [
        ({"a2c": row_of(0.8), "optimal": row_of(1.0, is_exact=True, iqm_low=1.0, iqm_high=1.0)}, []),
        ({"a2c": row_of(1.2), "optimal": row_of(1.0)}, ["luck of the evaluation episodes"]),
        ({"ppo": row_of(1.2), "reference": row_of(1.0)}, ["PPO at its usual budget"]),
        ({"ppo": row_of(0.9, iqm_low=0.9, iqm_high=0.9)}, ["all lives ended alike (ppo on s, ppo on t)"]),
        ({"ppo": row_of(0.9, iqm_low=0.9, iqm_high=0.9, num_tasks=1, num_seeds=1)}, ["One life has no interval"]),
    ],
)
def test_scores_above_1_and_intervals_without_width_are_explained_once(agents, words, unfinished):
    told = results.remarks({"s": agents, "t": agents})
    assert [any(word in sentence for sentence in told) for word in words] == [True] * len(words)
    assert len(told) == len(words)
    results.write_json(unfinished / "evaluation.json", {"s": agents, "t": agents})
    page = reports.write(unfinished).read_text()
    assert all(page.count(sentence) == 1 for sentence in told)


@pytest.mark.parametrize(("entropy", "is_idle"), [(np.log(8) - 1e-5, True), (1.2, False)])
def test_a_prediction_that_nothing_is_made_of_is_said_to_be_unused(run, entropy, is_idle):
    outcome = results.load_curves(run / "curves.npz")
    agent = outcome["grid-tiny"]["discovered"]
    changed = np.full_like(agent.metrics["prediction_entropy"], entropy)
    changed[0, 0, 0] = np.log(8)
    agent = replace(agent, metrics=agent.metrics | {"prediction_entropy": changed})
    page = str(sections.history({"grid-tiny": outcome["grid-tiny"] | {"discovered": agent}}, "grid-tiny"))
    assert ("y stays uniform all life long" in page) is is_idle
    assert ("entropy of the prediction y" in page) is not is_idle


@pytest.mark.parametrize("compiling", [0.0, 60.0, 3000.0])
def test_times_above_a_chart_are_apart(compiling):
    steps = np.arange(1, 31)
    axes = plots.meta_training(steps, steps / 30, compiling + 2.0 * steps, y_label="IQM").axes[0]
    (top,) = axes.child_axes
    places = np.array(top.get_xticks())
    assert len(places) >= 1
    assert (np.diff(places) >= plots.LEAST_GAP * 30 - 1e-6).all()


def test_settings_and_provenance_are_complete(page):
    assert "inner.objective.width" in section(page, "settings")
    assert "metadisco.objectives.lpg:LPG" in section(page, "settings")
    for value in (PROVENANCE["command"], PROVENANCE["commit"], PROVENANCE["hardware"], "jax 0.10.2", "14.2"):
        assert value in section(page, "provenance")


def test_run_that_is_still_going_has_a_report(unfinished):
    page = reports.write(unfinished).read_text()
    assert tuple(re.findall(r'<section id="(\w+)">', page)) == SECTIONS
    assert "not tested yet: meta-step 2 of 3" in page
    for name in ("scores", "distribution", "learning", "history", "levels"):
        assert 'class="missing"' in section(page, name)
    assert "<svg" in section(page, "training")
    assert "could not be made" not in page


def test_run_without_a_finished_meta_step_has_a_report(tmp_path):
    page = reports.write(begin_run(tmp_path / "run")).read_text()
    assert "No meta-step is logged yet" in page
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert reports.write(tmp_path / "run").read_text() == page


def test_half_written_line_of_the_log_is_left_out(unfinished):
    page = reports.write(unfinished).read_text()
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "fitn')
    assert reports.write(unfinished).read_text() == page


def test_log_without_one_finite_fitness_is_said(tmp_path):
    rows = [{"step": 1, "fitness": None, "finite_fraction": 0.0, "seconds": 2.0, "agent_updates": None}]
    page = reports.write(begin_run(tmp_path / "run", rows=rows)).read_text()
    assert "No finite fitness is logged" in page
    assert "100.00% of the candidates had no finite fitness" in page


@pytest.mark.parametrize("damage", ["removed", "truncated"])
def test_evaluation_without_curves_still_has_its_scores(run, tmp_path, damage):
    folder = shutil.copytree(run, tmp_path / "run")
    content = (folder / "curves.npz").read_bytes()
    (folder / "curves.npz").unlink()
    if damage == "truncated":
        (folder / "curves.npz").write_bytes(content[: len(content) // 2])
    page = reports.write(folder).read_text()
    assert "95% interval" in section(page, "scores")
    assert 'class="missing"' in section(page, "learning")
    assert "could not be made" not in page
    assert ("curves.npz cannot be read and is left out" in page) == (damage == "truncated")


def test_evaluation_that_is_damaged_is_said_to_be(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "evaluation.json").write_text('{"grid-tiny": ')
    (folder / "objective" / "objective.json").write_text("[]")
    page = reports.write(folder).read_text()
    assert "evaluation.json cannot be read and is left out" in page
    assert "objective/objective.json cannot be read and is left out: it has no provenance" in page
    assert "No evaluation yet" in section(page, "scores")


@pytest.mark.parametrize("error", [CheckpointError("no <tensors> left"), OSError("no <tensors> left")])
def test_file_that_cannot_be_read_is_said_and_the_rest_stands(unfinished, monkeypatch, error):
    monkeypatch.setattr(gallery, "kept_levels", failing(error))
    page = reports.write(unfinished).read_text()
    assert f"could not be made: {type(error).__name__}: no &lt;tensors&gt; left" in section(page, "kept")
    assert "<svg" in section(page, "training")
    assert "inner.objective.width" in section(page, "settings")


@pytest.mark.parametrize("kind", [AttributeError, TypeError, KeyError, ValueError, ZeroDivisionError])
def test_mistake_in_a_section_is_raised(unfinished, monkeypatch, kind):
    monkeypatch.setattr(gallery, "kept_levels", failing(kind("a mistake")))
    with pytest.raises(kind, match="a mistake"):
        reports.write(unfinished)


def failing(error):
    """A section that raises."""

    def fail(*_, **__):
        raise error

    return fail


def test_names_are_escaped(tmp_path):
    folder = end_run(begin_run(tmp_path / "a <b>&x run", preset="<script>alert(1)</script>", rows=log(num_steps=2)))
    outcome = results.load_curves(folder / "curves.npz")
    outcome = {
        suite: {agent.replace("a2c", "<i>mine"): each for agent, each in agents.items()}
        for suite, agents in outcome.items()
    }
    results.save_curves(folder / "curves.npz", outcome)
    results.write_json(folder / "evaluation.json", {"<u>&": results.table(outcome)["grid-tiny"]})
    page = reports.write(folder).read_text()
    assert not re.search(r"<script|<i>|<u>|<b>&x", page)
    assert "a &lt;b&gt;&amp;x run" in page
    assert "&lt;i&gt;mine" in page
    assert not Elements(page).open


def test_learned_drift_is_drawn_and_checked(tmp_path):
    objective = MirrorLearning(LPODrift(width=4, temporal=True))
    trainer = small.altered(small.trainer(), inner=small.inner_loop(objective))
    folder = begin_run(tmp_path / "run", rows=log(num_steps=2), trainer=trainer)
    assert "when meta-training is over" in section(reports.write(folder).read_text(), "drift")
    checkpoint.save(checkpoint.Discovered(objective, objective.init(jax.random.key(0))), folder / "objective")
    page = reports.write(folder).read_text()
    drift = section(page, "drift")
    assert "could not be made" not in page
    assert drift.count("<svg") == 4
    for word in ("PPO", "DPO", "TA-LPO", "n/N = 0.25"):
        assert f">{word}</text>" in drift, word
    assert drift.count("<code>holds</code>") == 3
    test_report_is_well_formed_and_names_are_unique(page)
    test_report_refers_to_nothing_outside(page)


def drift_run(folder, *, num_domains=1):
    """The folder of a run that learned a drift and was tested on an environment, at two lifetimes."""
    objective = MirrorLearning(LPODrift(width=4))
    domain = Domain(small.inner_loop(objective), DomainRandomization(small.TASKS), 2, name="0")
    domains = tuple(replace(domain, name=str(i)) for i in range(num_domains))
    begin_run(folder, rows=log(num_steps=3), trainer=EvolutionTrainer(domains, Evolution(), num_steps=3))
    checkpoint.save(checkpoint.Discovered(objective, objective.init(jax.random.key(0))), folder / "objective")
    test_set = suites.suite("grid-tiny").build(num_levels=1)
    outcome = {}
    for suite, lifetime in (("Acrobot-v1", 64), ("Acrobot-v1@128", 128)):
        lived = {"ppo": 0.7, "discovered": 0.8, "reference": 1.0}
        agents = {agent: evaluation(test_set, score, agent="ppo", seed=lifetime) for agent, score in lived.items()}
        for agent, each in agents.items():
            metrics = each.metrics | {"kl": 0.1 * each.metrics["entropy"], "drift": 0.01 * each.metrics["entropy"]}
            agents[agent] = replace(
                each,
                suite=suite,
                lifetime=lifetime,
                metrics=metrics,
                is_exact=agent == "reference",
                names=("Acrobot-v1",),
            )
        outcome[suite] = agents
    results.write_json(folder / "evaluation.json", results.table(outcome))
    results.save_curves(folder / "curves.npz", outcome)
    return folder


@pytest.fixture(scope="module")
def drift_pages(tmp_path_factory):
    """Reports of runs that learned a drift, by the number of domains."""
    folder = tmp_path_factory.mktemp("drifts")
    return {num: reports.write(drift_run(folder / f"run {num}", num_domains=num)).read_text() for num in (1, 2)}


@pytest.mark.parametrize("num_domains", [1, 2])
def test_report_of_a_drift_has_no_error_note(drift_pages, num_domains):
    page = drift_pages[num_domains]
    found = re.findall(r'<section id="(\w+)">', page)
    wanted = {"scores", "drift", "training", "distribution", "learning", "history", "settings", "provenance"}
    assert set(found) == wanted
    assert "could not be made" not in page
    assert "cannot be read" not in page
    assert 'class="missing"' not in page
    assert not re.search(r"\w+Error\b|has no attribute", page)


def test_report_of_a_drift_speaks_of_drifts_and_environments(drift_pages):
    page = drift_pages[1]
    text = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "could not be made" not in page
    assert not re.search(r"\b1 (unseen )?levels", text)
    assert "π̂" not in page
    assert "What the objective does" not in page
    assert "LPO discovered in" in text
    assert "on Acrobot-v1, " in text
    assert "1 environment, 2 seeds each" in text
    assert "With 2 times the lifetime: IQM" in text
    assert list(re.findall(r'<section id="(\w+)">', page))[:2] == ["scores", "drift"]
    assert 'id="levels"' not in page
    assert "mean of the drift D" in section(page, "history")


def test_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no config\.json"):
        reports.write(tmp_path)
    assert not list(tmp_path.iterdir())


def chromium(folder, *arguments):
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium to look at the report with: install it (apt-get install chromium)"
)
@pytest.mark.parametrize("width", [1200, 400])
def test_browser_shows_the_report_without_complaint(run, tmp_path, width):
    from PIL import Image

    picture = tmp_path / "page.png"
    browser = chromium(
        tmp_path, f"--window-size={width},1600", f"--screenshot={picture}", (run / "report.html").as_uri()
    )
    assert "CONSOLE" not in browser.stderr, browser.stderr
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (1600, width, 3)
    colors, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colors) > 50
    assert counts.max() < 0.97 * counts.sum()
    for agent in ("discovered", "a2c"):
        value = [int(chart_style.color(agent)[i : i + 2], 16) for i in (1, 3, 5)]
        assert (colors == value).all(axis=1).any(), f"nothing has the color of {agent}"


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium to look at the report with: install it (apt-get install chromium)"
)
def test_browser_complains_where_a_page_is_wrong(tmp_path):
    page = tmp_path / "wrong.html"
    page.write_text("<script>missing()</script>")
    assert "CONSOLE" in chromium(tmp_path, "--dump-dom", page.as_uri()).stderr
