"""The argument checks of C++ sources, and the sources with each check behind a switch.

A site is a statement TAE_CHECK*(..);, TORCH_CHECK*(..); or check_*(..);, or a call check_*(..)
whose value is used. A statement can be left out; a call whose value is used still computes it, and
the checks inside do nothing.
"""

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"\b(TAE_CHECK\w*|TORCH_CHECK\w*|check_\w+)\(")
# Comments, literals and preprocessor lines: what is no code.
NO_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"\(.*?\)"|"(?:\\.|[^"\\\n])*"|'
    r"'(?:\\[^\n]|[^'\\\n])'|^[ \t]*\#(?:[^\n]*\\\n)*[^\n]*",
    re.S | re.M,
)
STATEMENT_BEFORE = re.compile(r"(?:[;{})]|\belse)\s*\Z")
VALUE_BEFORE = re.compile(r"(?:[=(,{?:!]|&&|\|\||\breturn)\s*\Z")


@dataclass(frozen=True)
class Site:
    path: str  # from the root of the repository
    line: int
    head: str
    text: str  # in one line
    begin: int
    end: int
    number: int  # stays the same while the file keeps the text
    statement: bool

    def __str__(self):
        return f"{self.path}:{self.line}"


def code_of(text):
    """The text with blanks in place of what is no code; positions stay."""
    return NO_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def closing(code, at):
    """Just behind the parenthesis that closes code[at]."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i + 1
    raise ValueError("parentheses do not match")


def sites_of(path, root):
    text = path.read_text()
    code = code_of(text)
    name = str(path.relative_to(root))
    seen = Counter()
    found = []
    for match in NAME.finditer(code):
        begin, end = match.start(), closing(code, match.end() - 1)
        statement = code[end : end + 1] == ";" and bool(STATEMENT_BEFORE.search(code[:begin]))
        if not statement and not VALUE_BEFORE.search(code[:begin]):
            continue  # a declaration or a definition
        one_line = " ".join(text[begin:end].split())
        number = zlib.crc32(f"{name}:{one_line}:{seen[one_line]}".encode())
        seen[one_line] += 1
        line = text.count("\n", 0, begin) + 1
        found.append(Site(name, line, match[1], one_line, begin, end + statement, number, statement))
    return found


def with_switches(path, sites):
    """The file's text with every check behind its switch (check_sites.h); lines keep their numbers."""
    inserts = []
    for site in sites:
        if site.statement:
            watch = f"tae::mutants::Watch tae_watch({site.number}u); "
            inserts.append((site.begin, f"{{ if (!tae::mutants::skipped({site.number}u)) {{ {watch}"))
            inserts.append((site.end, " } else { tae::mutants::left_out(); } }"))
        else:
            inserts.append((site.begin, f"(tae::mutants::Call({site.number}u), "))
            inserts.append((site.end, ")"))
    text = path.read_text()
    for at, insert in sorted(inserts, key=lambda i: i[0], reverse=True):
        text = text[:at] + insert + text[at:]
    switches = Path(__file__).with_name("check_sites.h")
    once = "#pragma once\n" if path.suffix == ".h" else ""
    return f'{once}#include "{switches}"\n#line 1 "{path}"\n{text}'
