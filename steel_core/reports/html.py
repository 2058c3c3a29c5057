"""What HTML reports share: one file that needs no network, with pictures and plots inside, and everything escaped.

The policy of the file (Content-Security-Policy) forbids to load anything; Plotly's script lies in it once.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from steel_core import render
from steel_core.data.images.read import encode_png
from steel_core.render import plots

if TYPE_CHECKING:
    import plotly.graph_objects as go


def document(template: str, **context: Any) -> str:
    """A whole file: the head, and a Jinja template's body; `title` must be in the context."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda value: "–" if value is None else render.percent(value)
    script = Markup(_plotly_script())  # noqa: S704 - Plotly's own file
    return environment.from_string(_HEAD + template + _FOOT).render(script=script, **context)


def drawn(name: str, figure: go.Figure, number: int) -> dict[str, Any]:
    """A plot for a template: `name`, its sentence `alternative`, and `html`; `number` tells it from the others."""
    html = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{number}",
                          config={"displaylogo": False, "responsive": True})  # fmt: skip
    return {"name": name, "alternative": plots.alternative(figure), "html": Markup(html)}  # noqa: S704 - Plotly escapes


def inline(picture: render.Picture) -> Markup:
    """A picture as the address of an image that lies in the file itself."""
    return Markup("data:image/png;base64," + base64.b64encode(encode_png(picture)).decode())  # noqa: S704 - base64


def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - loads slowly, and only a report needs it

    return str(get_plotlyjs())


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 0 0 2rem; }
figcaption, .small { font-size: .85rem; opacity: .85; }
.worst { display: flex; flex-wrap: wrap; gap: 1rem; border-top: 1px solid #8884; padding: 1rem 0; }
.worst > div { flex: 1 1 14rem; max-width: 22rem; }
.worst img { width: 100%; image-rendering: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
.xtick text, .ytick text, .y2tick text, .xtitle, .ytitle, .y2title, .legendtext, .cbtitle text, .cbaxis text
{ fill: currentColor !important; }
</style>
<script>{{ script }}</script>
</head>
<body>
"""
_FOOT = """</body>
</html>
"""
