"""Steel Lens core: data, models and explanations for steel-surface defect review."""

import os

__version__ = "0.1.0"

# Left alone, a thread of GNU OpenMP that waits spins for milliseconds, and programs that share their cores slow each
# other many times over. Now it gives its core away soon. Read when torch is loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "30000"

# Tensors of 2 MB and more in huge pages, where Linux leaves the choice to programs: a tenth off a forward and backward
# pass on the CPU. Read when torch first allocates.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
