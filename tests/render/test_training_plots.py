"""The plots of a training: what they draw is what the card holds."""

import pytest

from steel_core.render import evaluation_plots, plots


@pytest.mark.parametrize("skill", ["val_macro_recall", "val_auc"])
def test_training_curves_draw_every_epoch_and_say_the_last(skill):
    history = [{"epoch": e, "train_loss": 1 / e, "val_loss": 2 / e, skill: 0.2 * e} for e in (1, 2, 4)]
    figure = evaluation_plots.training_curves(history)
    drawn = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert drawn["loss, training"] == ([1, 2, 4], [1.0, 0.5, 0.25])
    assert drawn["loss, validation"] == ([1, 2, 4], [2.0, 1.0, 0.5])
    assert list(figure.data[2].y) == pytest.approx([0.2, 0.4, 0.8])
    assert figure.data[2].yaxis == "y2"
    assert "0.500" in plots.alternative(figure)
    assert "0.800" in plots.alternative(figure)


def test_the_learning_rate_curve_draws_each_run_and_the_choice():
    figure = evaluation_plots.learning_rate_curve([[[1e-4, 2.0], [1e-3, 1.0]], [(1e-4, 2.1), (1e-2, 9.0)]], 1.5e-3)
    assert [list(trace.x) for trace in figure.data] == [[1e-4, 1e-3], [1e-4, 1e-2]]
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.shapes[0].x0 == 1.5e-3
    assert "1.5e-03" in plots.alternative(figure)
