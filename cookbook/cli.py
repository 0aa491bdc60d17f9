"""The command line: ``cookbook run | sweep | analyze | compare | serve``, thin over the package."""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cookbook.errors import CookbookError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (0: done, 1: failed, 2: wrong usage)."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command is _serve:
        options.rest = rest  # the engine's own options
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return options.command(options)
    except CookbookError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # what shells expect of a program ended by Ctrl-C


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cookbook", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute a notebook with your parameters")
    run.add_argument("name", help="a notebook of notebooks/, such as sl_basic, or a path")
    run.add_argument("parameters", nargs="*", metavar="key=value")
    run.add_argument(
        "--if-exists",
        default="",
        choices=("resume", "overwrite", "raise"),
        help="what to do with a run that is already at log_path",
    )
    run.set_defaults(command=_run)

    sweep = commands.add_parser(
        "sweep",
        help="execute a notebook once for each combination of values, then compare",
        description="Every run has its own folder. The same command goes on after an interruption, "
        "doing only what is missing; other values in the same folder are added.",
    )
    sweep.add_argument("name", help="a notebook of notebooks/, such as sl_basic, or a path")
    sweep.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="name=value,value"
    )
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    sweep.add_argument("--out", type=Path, help="its folder, default results/sweep_NOTEBOOK")
    sweep.set_defaults(command=_sweep)

    analyze = commands.add_parser("analyze", help="write report and plots of a run")
    analyze.add_argument("log_path", type=Path)
    analyze.add_argument("output_dir", type=Path)
    analyze.set_defaults(command=_analyze)

    compare = commands.add_parser("compare", help="write table, plots and report of several runs")
    compare.add_argument("log_paths", type=Path, nargs="+", metavar="log_path")
    compare.add_argument("output_dir", type=Path)
    compare.add_argument(
        "--by", metavar="SETTING", help="draw the outcome against it; default: one that differs"
    )
    compare.set_defaults(command=_compare)

    about = "Run the engine until you stop it; options: see python -m cookbook.engine --help."
    serve = commands.add_parser("serve", help="run the engine until you stop it", description=about)
    serve.set_defaults(command=_serve)
    return parser


def _run(options: argparse.Namespace) -> int:
    from cookbook.execute import run_notebook  # papermill takes a second to import

    result = run_notebook(options.name, options.parameters, options.if_exists)
    print(result)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from cookbook.sweep import run_sweep

    return int(run_sweep(options.name, options.parameters, options.out, options.jobs) > 0)


def _analyze(options: argparse.Namespace) -> int:
    from cookbook.analysis import analyze

    print(analyze(options.log_path, options.output_dir))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from cookbook.analysis import write_comparison

    for file in write_comparison(options.log_paths, options.output_dir, options.by):
        print(file)
    return 0


def _serve(options: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "cookbook.engine", "--embedded", *options.rest]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as engine:  # the pipe: it ends with us
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # it got the interrupt too and ends itself
                return engine.wait()
