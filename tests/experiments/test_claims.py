"""The page of claims and the leaderboard say what the files of results say, and no more than their intervals allow."""

import pytest

from experiments import claims, leaderboard
from experiments.compare_tables import summarize
from experiments.pages import write_between

MEASURED = {"a2c": (0.7, 0.1), "ppo": (0.6, 0.2), "a2c-count": (0.8, 0.5), "seed0": (0.8, 0.3), "seed1": (0.82, 0.3)}
RESULTS = {
    suite: {agent: {"iqm": iqm, "cvar": cvar} for agent, (iqm, cvar) in MEASURED.items()}
    for suite in (*claims.GENERAL, "labyrinths@16", "mazes@250")
}
ROWS = summarize(RESULTS, ["seed0", "seed1"])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.02, "ahead"), (-0.02, -0.01, "behind"), (-0.01, 0.02, "level"), (0.0, 0.1, "level")],
)
def test_the_interval_decides_the_word(low, high, word):
    assert claims.verdict(low, high) == word


def test_a_claim_is_beside_the_strongest_of_each_kind():
    assert claims.ahead_of(ROWS, "mazes@250", "iqm", claims.PLAIN)["other"] == "a2c"
    assert claims.ahead_of(ROWS, "mazes@250", "cvar", claims.PLAIN)["other"] == "ppo"
    text = claims.general(ROWS).text
    assert "IQM of 0.810, 0.810 and 0.810 after 16, 64 and 256 updates, mean of 2 runs" in text
    assert "A2C, PPO and DPO it is **level** at all of them: 0.110 (" in text  # two runs: wide intervals
    assert text.endswith("in the worst tenth of the levels **behind** at all of them.")


def test_lifetimes_with_the_same_verdict_are_said_together():
    rows = [dict(row, low=1.0, high=1.0) if row["suite"] == claims.GENERAL[0] else row for row in ROWS]
    said = claims.in_words([claims.ahead_of(rows, suite, "iqm", claims.PLAIN) for suite in claims.GENERAL])
    assert said == "**ahead** at 16, **level** at 64 and 256"


def test_the_titles_hold_for_the_numbers():
    here, tuned = claims.read("networks")["scores"]["Acrobot-v1@16"], claims.read("tune_ppo_acrobot")["best"]
    assert max(row["iqm"] for name, row in here.items() if name.startswith("seed")) <= tuned["iqm"]["16"]
    together = claims.read("compare_drifts")["together"]
    for name in ("lpo-quick", "ta-lpo-quick"):
        assert together["16"][name]["iqm_high"] < together["16"]["PPO"]["iqm_low"]
        assert together["256"][name]["iqm_high"] > together["256"]["PPO"]["iqm_low"]
    scores = claims.read("compare_scores")["scores"]["grid-unseen"]
    assert scores["groove-grid"]["iqm_low"] < scores["lpg-grid-gradient"]["iqm_high"]


@pytest.mark.parametrize(("path", "text"), [(claims.PAGE, claims.page), (claims.FRONT, claims.front)])
def test_the_pages_are_made_of_the_files_as_they_are(tmp_path, path, text):
    again = tmp_path / "page.md"
    again.write_text(path.read_text())
    write_between(again, claims.BEGIN, claims.END, text(claims.claims()))
    assert again.read_text() == path.read_text(), "run: python -m experiments.claims"


def test_the_leaderboard_is_made_of_the_files_as_they_are(tmp_path, monkeypatch):
    again = tmp_path / "page.md"
    again.write_text(leaderboard.PAGE.read_text())
    monkeypatch.setattr(leaderboard, "PAGE", again)
    before = again.read_text()
    leaderboard.main()
    assert again.read_text() == before, "run: python -m experiments.leaderboard"


def test_the_leaderboard_has_the_best_first():
    lines = leaderboard.grids(RESULTS, "found").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        *("| **found, 2 runs (discovered)**", "| A2C + bonus of counts", "| A2C", "| PPO"),
    ]
    assert "0.810 (" in lines[2]
