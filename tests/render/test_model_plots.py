"""The plot that sets several models side by side."""

import pytest

from steel_core.render import plots


def test_dots_keep_order_and_intervals_and_tell_yardsticks_apart():
    figure = plots.dots({"good<b>": (0.9, 0.8, 0.95), "poor": (0.5, 0.4, 0.7)}, "Accuracy", ["poor"])
    (dots,) = figure.data
    assert list(dots.y) == ["poor", "good&lt;b&gt;"]  # plotted from below
    assert list(dots.error_x.array) == pytest.approx([0.2, 0.05])
    assert list(dots.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert list(dots.marker.symbol) == ["diamond-open", "circle"]
    assert "good<b> 0.900 (0.800 to 0.950)" in plots.alternative(figure)
