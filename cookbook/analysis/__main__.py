"""`python -m cookbook.analysis LOG_PATH OUTPUT_DIR`: report, settings and picture of one run."""

import argparse
import sys

from cookbook.analysis.plots import finding
from cookbook.analysis.results import PICTURE, REPORT, SETTINGS, analyze
from cookbook.analysis.run import load_run
from cookbook.errors import CookbookError


def main(arguments: list[str] | None = None) -> int:
    """Analyse the run named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.analysis", description=__doc__)
    parser.add_argument("log_path", help="folder of the training run")
    parser.add_argument("output_dir", help="folder to write to; made when missing")
    options = parser.parse_args(arguments)
    try:
        folder = analyze(options.log_path, options.output_dir)
        run = load_run(options.log_path)
    except (CookbookError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{finding(run.headline())}.")
    for problem in run.problems:
        print(f"note: {problem}")
    for name in (REPORT, PICTURE, SETTINGS):
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
