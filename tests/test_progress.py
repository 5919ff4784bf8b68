"""What a run shows of itself."""

from tests.toy import Toy, quiet, run


def test_plain_display_reports_fitness_and_rate(tmp_path):
    console = quiet()
    run(Toy(), tmp_path / "run", console=console)
    last = console.file.getvalue().splitlines()[-1]
    assert last.startswith("meta-step 40/40 · fitness ")
    assert all(part in last for part in ("agent updates/s", "elapsed 0:00:", "left 0:00:00"))
