"""Search queries, as NSX's search takes them: `resource_type:Group AND tags.scope:os* AND NOT id:"a b"`.

A term is `field:value`, `field:(a OR b)` or a value alone, which is looked for in id, name and description; a
value goes on to the next operator, field or parenthesis.
Values have the wildcards * and ?; a backslash takes a character as it is; case does not matter. Pure, and the
time that matching takes is bounded by the number of terms times the length of what they are matched with
(wildcards are RE2's, which is linear).
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import re2

Document = dict[str, Any]
Predicate = Callable[[Document], bool]

MAX_QUERY: Final = 4096
MAX_DEPTH: Final = 20
MAX_TERMS: Final = 64
MAX_WILDCARDS: Final = 16
"""Of a term."""
_WORDS: Final = re.compile(r'\s+|(?P<word>[()]|"(?:\\.|[^"\\])*"|(?:\\.|[^\s()"\\])+)', re.DOTALL)
_FIELD: Final = re.compile(r"(?:\\.|[^\\:])*:")
_OPERATORS: Final = ("AND", "OR", "NOT", "(", ")")
_ANYWHERE: Final = ("id", "display_name", "description")


class BadQuery(Exception):
    """Not a query; the text says why."""


def parse(query: str) -> Predicate:
    """Whether an object is what the query looks for. Raises BadQuery."""
    if len(query) > MAX_QUERY:
        raise BadQuery(f"{len(query)} characters are more than {MAX_QUERY}")
    parser = _Parser(_words(query))
    found = parser.either(None)
    if parser.next is not None:
        raise BadQuery(f"{parser.next!r} is not expected there")
    return found


def values(document: Any, field: str) -> Iterator[str]:
    """What a field holds, `tags.scope` of every tag."""
    if isinstance(document, list):
        for each in document:
            yield from values(each, field)
    elif not field:
        yield str(document).lower() if isinstance(document, bool) else str(document)
    elif isinstance(document, dict):
        name, _, rest = field.partition(".")
        if document.get(name) is not None:
            yield from values(document[name], rest)


def _words(query: str) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(query):
        match = _WORDS.match(query, at)
        if match is None:
            raise BadQuery(f"cannot be read from {query[at : at + 20]!r} on")
        if match["word"]:
            found.append(match["word"])
        at = match.end()
    return found


class _Parser:
    """Recursive descent. `field`: whose values are meant within `field:( … )`."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0
        self._depth = 0
        self._terms = 0

    @property
    def next(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def _take(self) -> str:
        word = self.next
        if word is None:
            raise BadQuery("it ends too early")
        self._at += 1
        return word

    def either(self, field: str | None) -> Predicate:
        sides = [self._both(field)]
        while self.next == "OR":
            self._take()
            sides.append(self._both(field))
        return lambda document: any(side(document) for side in sides)

    def _both(self, field: str | None) -> Predicate:
        sides = [self._one(field)]
        while self.next not in (None, "OR", ")"):
            if self.next == "AND":
                self._take()
            sides.append(self._one(field))
        return lambda document: all(side(document) for side in sides)

    def _one(self, field: str | None) -> Predicate:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise BadQuery(f"it has more than {MAX_TERMS} terms")
        word = self._take()
        if word == "NOT":
            return self._within(lambda: _negated(self._one(field)))
        if word == "(":
            return self._within(lambda: self._closed(field))
        if word in _OPERATORS:
            raise BadQuery(f"{word!r} is not expected there")
        if field is not None or word.startswith('"'):
            return _term(field, word)
        name, colon, value = word.partition(":")
        if not colon:
            return _term(None, word)
        if value:
            return _term(name, value if value.startswith('"') else self._with_spaces(value))
        if self.next == "(":
            self._take()
            return self._within(lambda: self._closed(name))
        return _term(name, self._take())

    def _with_spaces(self, value: str) -> str:
        """With the bare words that follow: clients do not put quotes around a name with spaces that ends in a
        wildcard (`display_name:Web servers* AND ...`)."""
        while (
            (word := self.next)
            and word not in _OPERATORS
            and not word.startswith('"')
            and not _FIELD.match(word)
        ):
            value += f" {self._take()}"
        return value

    def _closed(self, field: str | None) -> Predicate:
        found = self.either(field)
        if self._take() != ")":
            raise BadQuery("a parenthesis is not closed")
        return found

    def _within(self, parse: Callable[[], Predicate]) -> Predicate:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadQuery(f"nested deeper than {MAX_DEPTH}")
        found = parse()
        self._depth -= 1
        return found


def _negated(predicate: Predicate) -> Predicate:
    return lambda document: not predicate(document)


def _term(field: str | None, word: str) -> Predicate:
    if word in _OPERATORS:
        raise BadQuery(f"{word!r} is not expected there")
    matches = _matcher(word)
    fields = _ANYWHERE if field is None else (field,)
    return lambda document: any(matches(value.lower()) for name in fields for value in values(document, name))


def _matcher(word: str) -> Callable[[str], bool]:
    """Whether a value in lower case is what the word means."""
    quoted = len(word) > 1 and word.startswith('"')
    literal, expression, wildcards = "", "(?s)", 0
    escaped = False
    for character in (word[1:-1] if quoted else word).lower():
        if not escaped and character == "\\":
            escaped = True
            continue
        if character in "*?" and not escaped and not quoted:
            wildcards += 1
            expression += ".*" if character == "*" else "."
        else:
            expression += re2.escape(character)
        literal += character
        escaped = False
    if not wildcards:
        return lambda value: value == literal
    if wildcards > MAX_WILDCARDS:
        raise BadQuery(f"{wildcards} wildcards in one value are more than {MAX_WILDCARDS}")
    pattern = re2.compile(expression)
    return lambda value: pattern.fullmatch(value) is not None
