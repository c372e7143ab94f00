"""Sphinx extension: what a page names becomes a link: sections, exercises, chapters, papers, terms of the glossary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx

from tools import site
from tools.book_sections import BOOK, OURS
from tools.pointers import NUMBER, NUMBERS

GLOSSARY, CONCORDANCE = "glossary", "appendix/I_book_sections"
HEADING = re.compile(rf"(Exercise )?({NUMBER})\b")
NAMED = re.compile(
    r"arXiv:(?P<arxiv>\d{4}\.\d{4,5})"
    rf"|(?P<kind>[Ss]ection|[Ee]xercise)s? {NUMBERS}"
    r"|\b[Cc]hapter (?P<chapter>\d)\b|\b[Aa]ppendix (?P<appendix>[A-M])\b"
)
ELSEWHERE = re.compile(r"(?:[Ii]ts|book.s) $")  # "the book's chapter 1" is none of ours
UNTOUCHED = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.title,
    nodes.term,
    nodes.math,
    nodes.math_block,
    nodes.raw,
)


class Term(NamedTuple):
    """An entry of the glossary: its anchor, its first sentence, and the number of the section that teaches it."""

    anchor: str
    sentence: str
    section: str


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Before a page is parsed: what tools/site.py changes in its text."""
    path = app.env.doc2path(docname, base=False).as_posix()
    source[0] = site.shown(source[0], path) if path.endswith(".ipynb") else site.with_links(source[0], path)


def note(app: Sphinx, doctree: nodes.document) -> None:
    """After a page is parsed: remember where its numbered sections are, and what the glossary says."""
    env = app.env
    for name in ("places", "terms"):
        vars(env).setdefault(f"course_{name}", {})
    for section in doctree.findall(nodes.section):
        heading = HEADING.match(section.next_node(nodes.title).astext())
        if heading and not env.docname.endswith("_solutions"):
            name = f"{heading[1] or ''}{heading[2]}".lower()
            env.course_places[name.capitalize()] = (env.docname, section["ids"][0])
    if env.docname == GLOSSARY:
        for item in doctree.findall(nodes.definition_list_item):
            text = item.next_node(nodes.definition).astext()
            taught = re.search(NUMBER, text.rpartition("Section")[2])
            for term in item.findall(nodes.term):
                env.course_terms[term.astext()] = Term(
                    term["ids"][0], re.split(r"(?<=\.)(?<!Dr\.)\s", text)[0], taught[0] if taught else ""
                )


class Linker:
    """Puts links into one page."""

    def __init__(self, app: Sphinx, docname: str) -> None:
        self.app, self.docname = app, docname
        self.places, self.terms = app.env.course_places, app.env.course_terms
        self.done: set[str] = {docname}  # pages and terms that were linked already
        self.entry: nodes.Element | None = None  # of the glossary, on its own page
        # "Ratio (of policies)" is a word like others: linked in bold, and on the page that teaches it.
        self.bold, self.spelling = {}, {}
        for name, term in self.terms.items():
            word, _, special = name.partition(" (")
            self.bold[word.lower()] = name
            if not special or self.places.get(term.section, [""])[0] == docname:
                self.spelling[word.lower()] = name
        words = sorted((name.partition(" (")[0] for name in self.spelling.values()), key=len, reverse=True)
        either = [f"[{word[0].lower()}{word[0].upper()}]{re.escape(word[1:])}" for word in words]
        self.term = re.compile(rf"(?<![\w-])(?P<term>{'|'.join(either)})(?:s|es)?(?![\w-])")

    def link(self, text: str, page: str, anchor: str, **attributes: object) -> nodes.reference:
        """A link to a place in the web edition."""
        address = "" if page == self.docname else self.app.builder.get_relative_uri(self.docname, page)
        target = f"{address}#{anchor}" if anchor else address
        return nodes.reference("", "", nodes.inline(text, text), internal=True, refuri=target, **attributes)

    def external(self, text: str, address: str) -> nodes.reference:
        """A link to another site."""
        return nodes.reference(text, text, internal=False, refuri=address)

    def numbered(self, text: str, kind: str) -> Iterator[nodes.Node]:
        """A text with numbers of sections or exercises, each as a link; words before the first belong to it."""
        single = len(re.findall(NUMBER, text)) == 1
        pattern = rf"{'.*?' if single else ''}({NUMBER})"
        end = 0
        for found in re.finditer(pattern, text):
            yield nodes.Text(text[end : found.start()])
            place = self.places.get(f"Exercise {found[1]}" if kind == "exercise" else found[1])
            yield self.link(found[0], *place) if place else nodes.Text(found[0])
            end = found.end()
        yield nodes.Text(text[end:])

    def listed(self, text: str) -> Iterator[nodes.Node]:
        """An entry of a column that names our sections and exercises."""
        for part in re.split(rf"((?:exercise )?{NUMBER})", text):
            place = self.places.get(part.capitalize())
            yield self.link(part, *place) if place else nodes.Text(part)

    def page(self, found: re.Match) -> nodes.Node:
        """The first mention of a chapter or appendix."""
        number, letter = found["chapter"], found["appendix"]
        stem = f"ch{int(number):02d}/ch{int(number):02d}_main" if number else f"appendix/{letter}_"
        docs = (each for each in sorted(self.app.env.found_docs) if not each.endswith(("_exercises", "_solutions")))
        page = next((each for each in docs if each.startswith(stem)), self.docname)
        if page in self.done:
            return nodes.Text(found[0])
        self.done.add(page)
        return self.link(found[0], page, "")

    def named(self, text: str) -> Iterator[nodes.Node]:
        """A text with links to what it names by a number."""
        end = 0
        for found in NAMED.finditer(text):
            yield nodes.Text(text[end : found.start()])
            end = found.end()
            if found["arxiv"]:
                yield self.external(found[0], f"https://arxiv.org/abs/{found['arxiv']}")
            elif ELSEWHERE.search(text[: found.start()]):
                yield nodes.Text(found[0])
            elif found["kind"]:
                yield from self.numbered(found[0], found["kind"].lower())
            else:
                yield self.page(found)
        yield nodes.Text(text[end:])

    def defined(self, text: str, bold: bool) -> Iterator[nodes.Node]:
        """A text with a link where it uses a term of the glossary for the first time."""
        end = 0
        whole = self.bold.get(text.lower()) if bold else None
        if whole and self.terms[whole].anchor not in self.done:
            yield self.to_glossary(text, whole)
            return
        for found in self.term.finditer(text):
            name = self.spelling[found["term"].lower()]
            if self.terms[name].anchor not in self.done:
                yield nodes.Text(text[end : found.start()])
                yield self.to_glossary(found[0], name)
                end = found.end()
        yield nodes.Text(text[end:])

    def to_glossary(self, text: str, name: str) -> nodes.reference:
        """A link to a term, with the beginning of its explanation for those who point at it."""
        term = self.terms[name]
        self.done.add(term.anchor)
        return self.link(text, GLOSSARY, term.anchor, classes=["term"], reftitle=term.sentence)

    def begin(self, entry: nodes.Element) -> None:
        """Come to an entry of the glossary, which may link to all others anew, and not to itself."""
        if entry is not self.entry:
            self.entry, self.done = entry, {self.docname, *ids(entry)}

    def replace(self, node: nodes.Text, column: str) -> None:
        """Put the links into one text."""
        text = node.astext().replace("\n", " ")
        bold = isinstance(node.parent, nodes.strong)
        parts: list[nodes.Node] = []
        for part in self.listed(text) if column == OURS else self.named(text):
            parts += [part] if isinstance(part, nodes.reference) else self.defined(part.astext(), bold)
        node.parent.replace(node, [part for part in parts if part.astext()])


def columns(doctree: nodes.document) -> dict[nodes.Node, str]:
    """The column in which each entry of a table with a column of our sections stands."""
    found = {}
    for table in doctree.findall(nodes.table):
        heads = [entry.astext() for entry in table.next_node(nodes.thead).findall(nodes.entry)]
        for row in table.next_node(nodes.tbody).findall(nodes.row) if OURS in heads else []:
            found |= dict(zip(row.findall(nodes.entry), heads, strict=True))
    return found


def ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    """The nodes that a node stands in, from the inside."""
    while node := node.parent:
        yield node


def name_columns(doctree: nodes.document) -> None:
    """Give the empty head of a table's first column a name that only screen readers say."""
    for head in doctree.findall(nodes.thead):
        for entry in head.findall(nodes.entry):
            if not entry.astext().strip():
                entry.children = []
                entry += nodes.paragraph("", "", nodes.inline("", "Row", classes=["visually-hidden"]))


def connect(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Before a page is written: put the links in."""
    name_columns(doctree)
    linker, column = Linker(app, docname), columns(doctree)
    for node in list(doctree.findall(nodes.Text)):
        around = list(ancestors(node))
        if any(isinstance(each, UNTOUCHED) for each in around):
            continue
        entry = next((column[each] for each in around if each in column), "")
        if docname == GLOSSARY:
            linker.begin(next((each for each in around if isinstance(each, nodes.definition_list_item)), doctree))
        if entry != BOOK:
            linker.replace(node, entry)


def ids(item: nodes.Element) -> list[str]:
    """The anchors of an entry of the glossary."""
    return [name for term in item.findall(nodes.term) for name in term["ids"]]


def setup(app: Sphinx) -> dict[str, object]:
    """Register what is done to the pages."""
    app.connect("source-read", read)
    app.connect("doctree-read", note)
    app.connect("doctree-resolved", connect)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
