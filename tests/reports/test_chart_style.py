"""How charts look: names beside the ends of lines."""

from metadisco.reports import chart_style


def test_a_long_name_beside_a_line_takes_two_lines():
    _, axes = chart_style.new_axes()
    chart_style.label_ends(axes, [(0.5, "A2C + bonus of counts", "#000000"), (0.5, "DPO", "#000000")])
    names = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert set(names) == {"A2C +\nbonus of counts", "DPO"}
    assert abs(names["DPO"] - names["A2C +\nbonus of counts"]) > 0.05  # they do not overlap
