"""Pictures of drifts: what is in their panels, and which files are written."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports import drift_plots
from metadisco.reports.drift_plots import GRADIENT, PENALTY

RATIO, ADVANTAGE = drift_plots.axes_values()
PPO = Discovered(MirrorLearning(PPODrift()), ()).drift


def temporal():
    """TA-LPO with a drift that can be seen and that grows with n/N."""
    rule = LPODrift(width=8, temporal=True)
    meta_params = {"hidden": jax.random.normal(jax.random.key(0), (16, 8)).at[:8].set(0.0), "out": jnp.ones((8, 1))}
    return Discovered(MirrorLearning(rule), meta_params)


@pytest.fixture(scope="module")
def discovered():
    return temporal()


@pytest.fixture(scope="module")
def gradients(discovered):
    return drift_plots.compare(drift_plots.side_by_side(discovered), GRADIENT, limit=4.0)


def shown(figure, panel):
    """The values in a panel, and what one at (r, A) is."""
    (image,) = figure.axes[panel].images
    values = np.asarray(image.get_array())
    return values, lambda ratio, advantage: values[np.argmin(abs(ADVANTAGE - advantage)), np.argmin(abs(RATIO - ratio))]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes[:-1]]


def test_gradient_of_ppo_is_the_advantage_inside_the_clip_and_nothing_where_there_is_no_more_to_gain(gradients):
    values, _ = shown(gradients, titles(gradients).index("PPO"))
    ratio, advantage = np.meshgrid(RATIO, ADVANTAGE)
    held = ((advantage > 0) & (ratio > 1.2)) | ((advantage < 0) & (ratio < 0.8))
    assert 0.2 < held.mean() < 0.5
    np.testing.assert_allclose(values, np.where(held, 0.0, advantage), atol=1e-6)


def test_gradient_of_dpo_is_its_derivative(gradients):
    values, _ = shown(gradients, titles(gradients).index("DPO"))
    ratio, advantage = (each.astype(np.float64) for each in np.meshgrid(RATIO, ADVANTAGE))
    good = np.tanh((ratio - 1) * advantage / 2.0) ** 2 * advantage  # relu lets it pass where (r - 1) A > 0
    bad = np.tanh(np.log(ratio) * advantage / 0.6) ** 2 * advantage / ratio
    slope = np.where((ratio - 1) * advantage > 0, np.where(advantage > 0, good, bad), 0.0)
    np.testing.assert_allclose(values, advantage - slope, rtol=1e-3, atol=1e-3)


def test_penalty_of_ppo_at_known_points(discovered):
    figure = drift_plots.compare(drift_plots.side_by_side(discovered), PENALTY)
    values, at = shown(figure, 0)
    assert at(1.1, 2.0) == at(0.5, 2.0) == 0.0
    ratio, advantage = RATIO[-1], ADVANTAGE[-1]
    np.testing.assert_allclose(values[-1, -1], (ratio - 1.2) * advantage, rtol=1e-5)
    np.testing.assert_allclose(values[0, 0], (RATIO[0] - 0.8) * ADVANTAGE[0], rtol=1e-5)


def test_rows_are_advantages_and_columns_are_ratios_as_the_axes_say():
    (image,) = (
        drift_plots.compare({"ramp": lambda ratio, advantage, progress: ratio + 0 * advantage}, PENALTY).axes[0].images
    )
    assert image.origin == "lower"
    assert image.get_extent() == [-1.0, 1.0, -3.0, 3.0]
    np.testing.assert_array_equal(image.get_array()[7], RATIO)


def test_all_panels_share_a_scale_on_which_nothing_is_neutral(gradients):
    images = [axes.images[0] for axes in gradients.axes]
    assert {image.get_clim() for image in images} == {(-4.0, 4.0)}
    red, green, blue, _ = images[0].cmap(0.5)
    assert max(red, green, blue) - min(red, green, blue) < 0.02
    assert min(red, green, blue) > 0.9


def test_strip_has_a_panel_for_each_fraction_and_the_drift_at_it(discovered):
    figure = drift_plots.strip(discovered.drift, PENALTY, fractions=(0.0, 0.5, 1.0))
    assert titles(figure) == ["n/N = 0.00", "n/N = 0.50", "n/N = 1.00"]
    for panel, fraction in enumerate((0.0, 0.5, 1.0)):
        values, _ = shown(figure, panel)
        expected = discovered.drift(RATIO[None], ADVANTAGE[:, None], fraction)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert len(drift_plots.strip(PPO).axes) == len(drift_plots.FRACTIONS) + 1  # the scale


@pytest.mark.parametrize("num_frames", [2, 5])
def test_animation_is_a_gif_with_as_many_frames_as_asked(num_frames):
    from PIL import Image

    with Image.open(io.BytesIO(drift_plots.animation({"PPO": PPO}, num_frames=num_frames))) as image:
        assert image.format == "GIF"
        assert image.n_frames == num_frames
        assert image.info["loop"] == 0


@pytest.mark.parametrize("num_frames", [1, 102])
def test_animation_of_too_few_or_too_many_frames_is_refused(num_frames):
    with pytest.raises(ValueError, match="2 to 101"):
        drift_plots.animation({"PPO": PPO}, num_frames=num_frames)


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (PPODrift(), ["PPO", "DPO"]),
        (PPODrift(0.3), ["PPO", "DPO"]),
        (DPODrift(), ["PPO", "DPO"]),
        (DPODrift(1.0, 1.0), ["PPO", "DPO", "this DPO"]),
        (LPODrift(clip=0.3), ["PPO", "DPO", "LPO"]),
        (LPODrift(clip=None, temporal=True), ["PPO", "DPO", "TA-LPO"]),
    ],
    ids=str,
)
def test_a_drift_stands_beside_ppo_and_dpo(rule, names):
    beside = drift_plots.side_by_side(Discovered(MirrorLearning(rule), rule.init(jax.random.key(0))))
    assert list(beside) == names
    clip = getattr(rule, "clip", None) or 0.2
    np.testing.assert_allclose(beside["PPO"](2.0, 1.0), 1.0 - clip, rtol=1e-5)


def test_files_are_written_and_not_replaced_unless_asked(discovered, tmp_path, monkeypatch):
    monkeypatch.setattr(drift_plots, "animation", lambda *_: b"GIF89a")
    folder = tmp_path / "new" / "pictures"
    paths = drift_plots.write(discovered, folder)
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    assert [path.name for path in paths] == [
        "drift.png",
        "gradient.png",
        "drift-over-training.png",
        "gradient-over-training.png",
        "gradient-over-training.gif",
    ]
    for path in paths[:-1]:
        assert path.read_bytes().startswith(b"\x89PNG")
    paths[0].write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        drift_plots.write(discovered, folder)
    assert paths[0].read_bytes() == b"mine"
    drift_plots.write(discovered, folder, overwrite=True)
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_a_drift_without_time_has_no_strips():
    assert list(drift_plots.figures(Discovered(MirrorLearning(DPODrift()), ()))) == ["drift", "gradient"]


def test_an_objective_without_a_drift_has_no_pictures(tmp_path):
    with pytest.raises(config.ConfigError, match="A2C has no drift: only a MirrorLearning"):
        drift_plots.write(Discovered(A2C(), ()), tmp_path / "pictures")
    assert not list(tmp_path.iterdir())
