"""Copies results into the page of benchmarks.

    python -m benchmarks.page [--results benchmarks/results] [name ...]

docs/benchmarks.md holds places `<!-- result: convnets -->` to `<!-- end -->`; what lies between is
replaced by the markdown of that result, without its title. Without names every place is filled
whose result is there. README.md gets the short form of the page. Exit status 1 when a name has no place
or no result.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks import short  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
PLACE = re.compile(r"(<!-- result: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(path):
    """The markdown of a result without its title line."""
    _, _, body = path.read_text().partition("\n")
    return body.strip() + "\n"


def filled(page, results, names):
    """(the page with new tables, names that were filled)."""
    done = []

    def replace(place):
        start, name, end = place.groups()
        path = results / f"{name}.md"
        if (names and name not in names) or not path.exists():
            return place.group()
        done.append(name)
        return f"{start}{table(path)}{end}"

    return PLACE.sub(replace, page), done


def main(arguments=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*")
    p.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    p.add_argument("--page", type=Path, default=PAGE)
    args = p.parse_args(arguments)
    page, done = filled(args.page.read_text(), args.results, args.names)
    args.page.write_text(page)
    if args.page == PAGE:
        README.write_text(short.filled(README.read_text(), page))
    print(f"filled: {', '.join(done) or 'nothing'}")
    missing = sorted(set(args.names) - set(done))
    if missing:
        print(f"no place or no result: {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
