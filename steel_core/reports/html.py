"""What HTML reports share: one file that needs no network, with pictures and plots inside, and everything escaped.

The policy of the file (Content-Security-Policy) forbids to load anything; Plotly's script lies in it once.
"""

import base64
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from steel_core import render
from steel_core.data.images.read import encode_png
from steel_core.render import plots
from steel_core.types import UInt8Array


def render_page(template: str, **context: Any) -> str:
    """A whole file from one of the `templates`; `title` must be in the context."""
    return _environment().get_template(template).render(script=_plotly_script(), **context)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda share: "–" if share is None else render.percent(share)
    environment.filters["difference"] = lambda share: "" if pd.isna(share) else f"{100 * share:+.1f} %"
    return environment


def embed_plot(name: str, figure: plots.Figure, number: int) -> dict[str, Any]:
    """A plot for a template: `name`, its sentence `alternative`, and `html`; `number` tells it from the others."""
    html = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{number}",
                          config={"displaylogo": False, "responsive": True})  # fmt: skip
    return {"name": name, "alternative": plots.alternative(figure), "html": Markup(html)}  # noqa: S704 - Plotly escapes


def embed_picture(picture: UInt8Array) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(encode_png(picture)).decode())  # noqa: S704 - base64


def _plotly_script() -> Markup:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - loads slowly, and only a report needs it

    return Markup(get_plotlyjs())  # noqa: S704 - Plotly's own file
