"""The command line: which set, from where, to where; prints what was written, or why a set was skipped."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.converters import banking77, llmdrift, mmlu_pro, routellm, zeroeval
from benchmarks.converters.sources import MissingSetError
from upstack.core.errors import ConfigError

SETS = {
    "zeroeval": zeroeval.convert,
    "mmlu-pro": mmlu_pro.convert,
    "routellm": routellm.convert,
    "banking77": banking77.convert,
    "llmdrift": llmdrift.convert,
}
PROJECT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Convert; return 0 also where a set is not there (it says so), 1 for a file that cannot be converted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.set == "all" and options.file is not None:
        parser.error("--file is one set's file: name the set")
    out: Path = options.out
    if PROJECT in (out.resolve(), *out.resolve().parents):
        print(f"{out}: lies in the project, where such data must not be; name a folder outside", file=sys.stderr)
        return 2
    if options.data is None and options.file is None:
        print("skipped: UPSTACK_DATA is not set and neither --data nor --file is given")
        return 0
    for name in SETS if options.set == "all" else (options.set,):
        try:
            out.mkdir(parents=True, exist_ok=True)
            for line in SETS[name](options.data, out, options.file):
                print(f"{name}: {line}")
        except MissingSetError as missing:
            print(f"{name}: skipped: {missing}")
        except (ConfigError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.converters", description=__doc__)
    parser.add_argument("set", choices=[*SETS, "all"])
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="a folder outside the project; made where missing")
    parser.add_argument(
        "--data",
        type=_folder,
        default=_folder(os.environ.get("UPSTACK_DATA", "")),
        help="the folder of the sets (default: $UPSTACK_DATA)",
    )
    parser.add_argument("--file", type=Path, help="another input file of the set, with the same columns")
    return parser


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


if __name__ == "__main__":
    sys.exit(main())
