"""``python -m cookbook``: the command line without the installed script."""

import sys

from cookbook.cli import main

sys.exit(main())
