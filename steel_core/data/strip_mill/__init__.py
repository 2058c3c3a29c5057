"""The strip mill: a procedural data set of steel sheets with the six NEU defect types, free of any licence.

    mill = StripMill(size=(200, 200), seed=0)
    sheet = mill.render(7)                  # pixels, label, mask, stain mask; no disk
    make(mill, 700, Path("sheets"))         # images, masks and a manifest

`surface.py` rolls the sound strip, `defects.py` draws one defect type a function, `stain.py` the white stain,
`mill.py` holds the dials, `writer.py` writes a data set.
"""

from steel_core.data.strip_mill.mill import LABELS, Sheet, StripMill
from steel_core.data.strip_mill.stain import draw_stain
from steel_core.data.strip_mill.writer import SPEC, make

__all__ = ["LABELS", "SPEC", "Sheet", "StripMill", "draw_stain", "make"]
