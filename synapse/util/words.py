"""Texts cut into words, for finding them again: without case, accents and width, so that "SMITH" and "Šmith" both find
"smith".

PostgreSQL's own parser is not used for this: it takes `alice.smith` for a host name, and in a database of the locale C
it knows no letters but those of ASCII.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

WORD: Final = re.compile(r"[^\W_]+")
# Scripts that are written without spaces.
UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def fold(text: str) -> str:
    """The text without case, accents and width."""
    if text.isascii():
        return text.lower()
    # Letters of mathematics decompose into capitals, and some small letters fold into what decomposes once more.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def terms(text: str) -> list[str]:
    """The words of a text, folded. What is written without spaces becomes a term of single characters, with spaces
    between them: whoever looks for a part of it finds it as a phrase."""
    found: list[str] = []
    for word in WORD.findall(fold(text)):
        if word.isascii():
            found.append(word)
            continue
        start = 0
        for run in UNSPACED.finditer(word):
            found += [word[start : run.start()], " ".join(run[0])]
            start = run.end()
        found.append(word[start:])
    return [term for term in found if term]
