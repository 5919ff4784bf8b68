"""The report's part on the levels that a curriculum kept."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from metadisco import reports
from metadisco.core import config
from metadisco.curricula import buffer as level_buffer
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.snapshots import save_snapshot
from metadisco.curricula.tasks import LogUniformLifetime, Tasks
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.evaluation import stats
from metadisco.reports import gallery, plots
from metadisco.reports.gallery import draw_tasks, spread, task_features
from tests.reports.test_report import Elements, section
from tests.support import small
from tests.support.small import LEVELS, TASKS

PLR = PrioritizedLevelReplay(TASKS, capacity=8)
LONGER = Tasks(LEVELS, LogUniformLifetime(4, 5))


def begin_run(folder, curriculum):
    trainer = small.altered(small.trainer(num_steps=40), curriculum=curriculum)
    document = {"format_version": 1, "seed": 7, "provenance": {"preset": "tiny"}}
    document["trainer"] = config.to_data(trainer)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def draw(source, num, seed):
    return jax.device_get(jax.jit(jax.vmap(source.sample))(jax.random.split(jax.random.key(seed), num)))


def leave_levels(folder, step, *, num_levels=8, source=TASKS, seed=0):
    """A snapshot with drawn levels, scored 0.5, 1.5, ..., played 1, 2, ... times and as old as the run."""
    tasks = draw(source, num_levels, seed)
    buffer = level_buffer.begin(tasks, np.arange(num_levels) + 0.5, np.arange(num_levels) + 1, 8)
    save_snapshot(folder, step, PLR, buffer.replace(clock=np.int32(step)), {"seed": 7})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that goes on, whose lifetimes grow longer than those of the base distribution."""
    folder = begin_run(tmp_path_factory.mktemp("runs") / "run", PLR)
    leave_levels(folder, 4, num_levels=3)
    leave_levels(folder, 8)
    leave_levels(folder, 12, source=LONGER, seed=1)
    reports.write(folder)
    return folder


@pytest.fixture(scope="module")
def kept(run):
    return section((run / "report.html").read_text(), "kept")


def test_gallery_shows_the_best_levels_of_every_moment(kept):
    titles = re.findall(r"<h3>After meta-step (.*?)</h3>", kept)
    assert titles == ["4: the 3 best of 3 levels", "8: the 6 best of 8 levels", "12: the 6 best of 8 levels"]
    assert kept.count("<img") == 3 + 6 + 6
    scores = re.findall(r"<b>score (.*?)</b>", kept)
    assert scores == ["2.50", "1.50", "0.50"] + 2 * ["7.50", "6.50", "5.50", "4.50", "3.50", "2.50"]


def test_captions_are_those_of_the_levels(kept):
    tasks = draw(LONGER, 8, seed=1)
    caption = f"score 7.50</b><br>lifetime {tasks.lifetime[7]}<br>{tasks.level.max_steps[7]} steps<br>age 12, 8 plays<"
    assert kept.count(caption) == 1
    assert "age 4, 1 play<" in kept


def test_pictures_have_one_scale(kept):
    widths = [float(width) for width in re.findall(r'style="width:([\d.]+)%"', kept)]
    assert len(widths) == 15
    assert max(widths) == 100.0
    frame, cell = 8, gallery.CELL_SIZE
    possible = {round(100 * (side * cell + frame) / (4 * cell + frame), 1) for side in (1, 2, 3, 4)}
    assert set(widths) <= possible


def test_table_gives_the_distances_and_what_chance_would_give(kept):
    base, last = task_features(LEVELS.env, [draw_tasks(TASKS), draw(LONGER, 8, seed=1)])
    critical = stats.ks_critical(8, gallery.NUM_BASE)
    for name, feature in gallery.FEATURES.items():
        distance = stats.ks_distance(base[name], last[name])
        verdict = "yes" if distance > critical else "no"
        row = re.search(rf'<th scope="row">{feature.title}</th>(.*?)</tr>', kept)[1]
        assert re.findall("<td>(.*?)</td>", row)[2:] == [f"{distance:.2f}", verdict]
    row = re.search(r'<th scope="row">lifetime</th>(.*?)</tr>', kept)[1]
    assert row.endswith("<td>yes</td>")
    assert f"above {critical:.2f}" in kept


def test_every_feature_has_a_chart(kept):
    charts = re.findall(r'<svg role="img" aria-label="(.*?) of kept levels against', kept)
    wanted = [f"{feature.title}, {feature.unit}" for feature in gallery.FEATURES.values()]
    assert [title for title in charts if title in wanted] == wanted
    assert set(charts) - set(wanted) == {"score", "age, meta-steps", "no reward in reach, % of levels"}
    assert not Elements(kept).open


def test_a_curriculum_without_a_buffer_has_no_section(tmp_path):
    page = reports.write(begin_run(tmp_path / "run", DomainRandomization(TASKS))).read_text()
    assert 'id="kept"' not in page
    assert "keeps no levels" not in page


def test_run_before_its_first_snapshot_says_so(tmp_path):
    page = reports.write(begin_run(tmp_path / "run", PLR)).read_text()
    assert "No snapshot of the kept levels yet" in section(page, "kept")


def test_damaged_snapshot_is_left_out_and_said(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "levels" / "8" / "curriculum.safetensors").write_bytes(b"x")
    page = section(reports.write(folder).read_text(), "kept")
    assert re.findall(r"<h3>After meta-step (\d+)", page) == ["4", "12"]
    assert "1 of the snapshots in levels/ cannot be read" in page


def test_items_are_spread_with_both_ends():
    assert spread([], 3) == []
    assert spread([1], 3) == [1]
    assert spread([1, 2, 3], 3) == [1, 2, 3]
    assert spread(list(range(11)), 3) == [0, 5, 10]


def test_levels_without_fixed_places_have_no_distance():
    tasks = Tasks(GridLevels(max_side=4, num_walls=2, max_objects=2, planes=True, random_positions=True))
    (values,) = task_features(tasks.levels.env, [draw(tasks, 5, seed=0)])
    assert "reward_distance" not in values
    assert values["num_objects"].shape == (5,)


def test_names_beside_a_logarithmic_axis_stand_where_the_lines_end():
    levels = np.array([10.0, 20.0, 50.0, 100.0, 1000.0])[:, None] * np.ones(3)
    axes = plots.distribution_shift(
        np.arange(3), levels, levels[:, 0] / 10, last_step=2, y_label="steps", logarithmic=True
    ).axes[0]
    (height,) = (text.get_position()[1] for text in axes.texts if text.get_text() == "kept")
    shown = axes.transAxes.inverted().transform(axes.transData.transform((0, 50.0)))[1]
    assert height == pytest.approx(shown)
