"""`python -m steel_core`: the command line."""

import sys

from steel_core.cli.main import main

sys.exit(main())
