"""`python -m steel_core.explain > docs/methods.md`: the methods, as they describe themselves."""

import sys

from steel_core.explain.base import EXPLAINERS, ExplainerInfo

_HEADER = """# The methods

Written by `python -m steel_core.explain > docs/methods.md` from what each method says of itself; a test fails where
this page is out of date. To add one: [add-an-explainer.md](add-an-explainer.md).

The cost is counted in forward (F) and backward (B) passes of the network for one image, with default settings.
*Signed*: red argues for the class, blue against it; otherwise only the strength is shown. *Additive*: the values sum to
the score for the class minus that of the reference.

| Method | Name | What the map shows | Kind | Needs | Cost | Source |
|---|---|---|---|---|---|---|
"""


def methods_page() -> str:
    """The page `docs/methods.md`: a row for each method, controls last."""
    infos = sorted(((name, EXPLAINERS[name].info) for name in EXPLAINERS), key=lambda item: (item[1].control, item[0]))
    return _HEADER + "".join(_row(name, info) for name, info in infos)


def _row(name: str, info: ExplainerInfo) -> str:
    facts = {
        "control": info.control,
        "signed": info.signed and not info.control,
        "additive": info.additive,
        "same for every class": not info.class_dependent,
    }
    cells = (
        info.title,
        f"`{name}`",
        info.plain,
        ", ".join(fact for fact, holds in facts.items() if holds) or "strength only",
        ", ".join(sorted(info.needs)) or "nothing",
        " + ".join(f"{n} {kind}" for n, kind in ((info.forward, "F"), (info.backward, "B")) if n) or "none",
        info.source,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(methods_page())
