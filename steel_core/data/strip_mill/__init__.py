"""The strip mill: a procedural data set of steel sheets with the six NEU defect types, free of any licence.

    mill = StripMill(size=(200, 200), seed=0)
    sheet = mill.render(7)                     # pixels, label, mask, stain mask; no disk
    write_sheets(mill, 700, Path("sheets"))    # images, masks and a manifest

Each module draws one part; `mill.py` holds the dials.
"""

from steel_core.data.strip_mill.mill import LABELS, Sheet, StripMill
from steel_core.data.strip_mill.surface import draw_stain
from steel_core.data.strip_mill.writer import SPEC, write_sheets

__all__ = ["LABELS", "SPEC", "Sheet", "StripMill", "draw_stain", "write_sheets"]
