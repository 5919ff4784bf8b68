"""A preset on environments that a user names."""

import pytest

from metadisco import cli
from metadisco.core.config import ConfigError
from metadisco.curricula.tasks import LogUniformLifetime
from metadisco.evaluation import environments, scales
from metadisco.evaluation.scales import Scale
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.presets import mixture, registry

pytestmark = pytest.mark.usefixtures("empty_home")

OWN = "tests.evaluation.test_any_environment:make"


def test_each_environment_has_its_own_agents_and_scale_and_a_share_of_the_tasks():
    scales.keep(OWN, Scale(random_return=-0.5, upper_return=0.9, lifetime=60, rate_factor=1.0, num_seeds=2))
    preset = registry.preset("lpo-quick")
    names = ["CartPole-v1", "gymnax:Acrobot-v1", OWN]
    found = mixture.on_environments(preset, names)
    domains = found.trainer.domains
    assert found.suites == tuple(names) == tuple(domain.name for domain in domains)
    assert [domain.num_tasks for domain in domains] == [16, 16, 16]
    assert found.trainer.num_tasks == preset.trainer.num_tasks
    acrobot = environments.environment("Acrobot-v1")
    assert domains[1].inner == environments.with_objective(domains[0].inner.objective, acrobot.inner)
    assert (domains[1].random_return, domains[1].reference_return) == (acrobot.random_return, acrobot.upper_return)
    assert (domains[2].random_return, domains[2].reference_return) == (-0.5, 0.9)
    assert all(domain.curriculum.tasks.lifetimes == LogUniformLifetime(24, 96) for domain in domains)
    assert found.trainer.meta_optimizer == preset.trainer.meta_optimizer
    learned = [domain.inner.objective for domain in domains]
    assert all(isinstance(each, MirrorLearning) and each.drift == learned[0].drift for each in learned)


def test_a_remainder_of_tasks_goes_to_the_first():
    names = ["CartPole-v1", "Acrobot-v1", "Catch-bsuite", "DeepSea-bsuite", "UmbrellaChain-bsuite"]
    found = mixture.on_environments(registry.preset("lpo-quick"), names)
    assert [domain.num_tasks for domain in found.trainer.domains] == [10, 10, 10, 9, 9]


@pytest.mark.parametrize(
    ("preset", "names", "match"),
    [
        ("lpo-quick", ["CartPole-v1", OWN], f"no scale is known.*metadisco tune {OWN}"),
        ("lpo-quick", ["CartPole-v1", "CartPole-v1"], "has one twice"),
        ("lpo-quick", ["grid-unseen"], "not an environment with agents of its own"),
        ("lpo-quick", ["gymnasium:CartPole-v1"], "stepped on the host"),
        ("lpo-quick", ["CartPole"], "unknown suite 'CartPole'"),
        ("lpg-grid-gradient", ["CartPole-v1"], "presets by evolution over whole lives"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_words(preset, names, match):
    with pytest.raises(ConfigError, match=match):
        mixture.on_environments(registry.preset(preset), names)


def test_the_command_line_takes_several(capsys):
    assert cli.main(["discover", "lpo-quick", "--environments", "CartPole-v1", "Catch-bsuite", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "24 tasks x 2 = 48 lives in CartPole-v1; 24 tasks x 2 = 48 lives in Catch-bsuite" in said.replace("\n", " ")
