r"""The text of an answer, before any mathematics: one spelling for what LaTeX, Markdown and Unicode spell many ways.

Covered: maths delimiters, `\left` and `\right`, spacing commands, `\text{}` and its relatives, Unicode signs,
thousands separators that are marked as such, repeating decimals, number words, phrases like "The answer is". Not
covered here: anything that needs to know what a symbol means. That is the parser's task (`math_parser.py`).

Everything is table lookups and linear regular expressions on a string of bounded length. The idea: ch03, section 3.4.
"""

import re
import unicodedata

from shared.grader.number_words import digits_for_words

MAX_CHARS = 2_000  # longer answers are compared as plain text only

_VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
    "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_SIGNS = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "∗": "*", "÷": r"\div ", "⁄": "/", "∕": "/", "≤": r"\leq ", "⩽": r"\leq ", "≥": r"\geq ", "⩾": r"\geq ",
    "≠": r"\neq ", "±": r"\pm ", "∓": r"\mp ", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\reals ", "º": "°",
    "˚": "°", "≈": r"\approx ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ",
    "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ", "ϕ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ", "ρ": r"\rho ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "∖": r"\setminus ", "′": "'", "’": "'", "“": '"', "”": '"', "，": ", ", "。": ".", "＄": r"\$",
    "\u200b": "", "\u200c": "", "\u200d": "", "\ufeff": "", "\u2060": "",
}  # fmt: skip
_UNICODE = str.maketrans(_SIGNS | {sign: rf"\frac{{{p}}}{{{q}}}" for sign, (p, q) in _VULGAR.items()})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙₖ", "0123456789+-nk")

_THIN = r"(?:\{,\}|,\s*\\!|\\[,;:!]|[\u2009\u202f\u00a0]|~)"
_TEXT_COMMANDS = r"text|textbf|textit|textrm|textnormal|textsf|mbox|hbox|mathrm|mathbf|mathit|mathsf|rm|operatorname\*?"
_SWITCH = r"(bf|it|rm)(?![A-Za-z]|\s*\{)"  # {\bf 5} is \mathbf{5}
_DELIMITERS = re.compile(r"\\\\|\\[()\[\]]|\$")
_SPACING = re.compile(
    r"\\\\|\\[,;:!>/ ]|\\(?:quad|qquad|enspace|thinspace|hfill|hspace\{[^{}]*\}|phantom\{[^{}]*\})(?![A-Za-z])|~"
)
_SIZING = re.compile(
    r"\\(?:(?:left|right|middle|[Bb]igg?[lrm]?)(?![A-Za-z])\.?|(?:displaystyle|textstyle|limits|nolimits|tiny|small"
    r"|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z]))"
)
_COLOURED = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SECONDS = re.compile(  # `3 sec` and `9.8 m/sec^2`; a secant has an argument
    r"((?:[\d}/]|per)\s*)sec(?=(?:(?<=/sec)\s*\^\{?2\}?)?\s*(?:$|[,;)<>=]|\\\}|and\b|or\b))"
)
_CURRENCIES = {"USD": r"\$", "EUR": "€", "GBP": "£"}
_PREFIX = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:(?:final|correct|right)\s+)?(?:answer|result|solution|option|choice)"
    r"(?:\s+is)?\s*[:=]?(?=[\s(\\$\d-])\s*",
    re.IGNORECASE,
)

_PUNCTUATION = re.compile(
    r"([(\[][^()\[\]]*,[^()\[\]]*[)\]]|(?<=\d)[.,](?=\d)|(?<=[\d)])!)"  # group 1 stays
    r"|[^\w\s+*/=<>\\%$^-]|(?<=\w)-(?=[^\W\d])|(?<=[^\W\d]) - (?=[^\W\d])"
)


def normalize_answer(text: str) -> str:
    r"""Rewrite an answer in one plain spelling: `"$\dfrac{1}{2}\,\text{cm}$."` becomes `"\dfrac{1}{2} cm"`.

    Only the spelling changes, never the value: no arithmetic is done. Text longer than `MAX_CHARS` is only
    stripped. Applying it twice gives the same as applying it once, for answers as models write them.
    """
    if len(text) > MAX_CHARS:
        return text.strip()
    text = unicodedata.normalize("NFKC", _plain_unicode(text))[:MAX_CHARS]
    for step in (_unmark, _undelimit, _unspace, _unwrap_text, _unphrase, _plain_numbers):
        text = step(text)
    text = re.sub(r"\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![A-Za-z]))", "'", text)
    text = re.sub(r"(?<=[A-Za-z])(\^(?:\w|\{\w+\}))(_(?:\w|\{\w+\}))", r"\2\1", text)  # v^2_0 is v_0^2
    text = re.sub(r"^\s*\{([^{}]*)\}\s*$", r"\1", text)
    return " ".join(text.rstrip("\\ ").split())


def squash(text: str) -> str:
    """Drop the spaces that cannot matter: all but those between two letters or digits (`3 1/2` is not `31/2`)."""
    return re.sub(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])", "", text)


def plain_words(text: str) -> str:
    """Lower-case words without punctuation, articles or hyphens: the form in which text answers are compared.

    Signs that are mathematics stay: `[0,1]` in a sentence is not `(0,1)`, nor `3.5` `3,5`, nor `5!` 5. An article is
    never the last word: `team A` keeps its letter.
    """
    text = text.replace("does not exist", "DNE").casefold()
    words = _PUNCTUATION.sub(lambda match: (match[1] or " ").replace(", ", ","), text).split()
    return " ".join([word for word in words[:-1] if word not in ("a", "an", "the")] + words[-1:])


def _plain_unicode(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉₊₋ₙₖ]+", lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
    return text.translate(_UNICODE)


def _unmark(text: str) -> str:
    """Markdown emphasis, code marks and quotation marks around the whole answer."""
    text = text.strip()
    for mark in ("**", "__", "`", '"', "*"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = text[len(mark) : -len(mark)].strip()
    return re.sub(r"(?:(?<=\s)|^)\*\*(?=\S)([^*]+)(?<=\S)\*\*(?=[\s.,:]|$)", r"\1", text)


def _undelimit(text: str) -> str:
    r"""Drop `$..$`, `\(..\)`, `\[..\]`. A dollar before a digit that nothing closes is money and becomes `\$`."""
    escaped = re.sub(r"\\\$", "\0", text)
    last = escaped.rfind("$")
    money = last >= 0 and re.match(r"\s*\.?\d", escaped[last + 1 :]) is not None
    replace = {"\\\\": "\\\\", "$": r"\$" if money else " "}
    return _DELIMITERS.sub(lambda m: replace.get(m[0], " "), escaped).replace("\0", r"\$")


def _unspace(text: str) -> str:
    text = re.sub(r"^\s*~\s*(?=[\d.$\\-])", r"\\approx ", text)
    text = re.sub(rf"(?<=\d)\s*{_THIN}\s*(?=\d{{3}}(?!\d))", "", text)
    text = re.sub(r"(?<![\d.,/\w])(\d{1,3}(?: \d{3})+)(?![\d/]|\s*\\frac|\s*/)", lambda m: m[0].replace(" ", ""), text)
    text = _SPACING.sub(lambda m: m[0] if m[0] == "\\\\" else " ", text)
    text = re.sub(
        r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|\\(?:degree|textdegree)(?![A-Za-z])",
        "° ",
        text,
    )
    return _SIZING.sub("", text)


def _unwrap_text(text: str) -> str:
    r"""Inline `\text{..}`, keep bold letters apart from plain ones (`\mathbf{i}` is not the imaginary unit)."""
    text = re.sub(rf"^\s*\\{_SWITCH}.*", r"{\g<0>}", text)
    text = re.sub(rf"\{{\s*\\{_SWITCH}([^{{}}]*)\}}", r"\\math\1{\2}", text)
    text = re.sub(r"\\(?:mathbf|hat|vec|boldsymbol)\s*\{\s*\\?([a-z])(?:math)?\s*\}", r"\\vector\1 ", text)
    text = re.sub(r"\\mathbb\s*(?:\{\s*R\s*\}|R)|\\R(?![A-Za-z])", r"\\reals ", text)
    for _ in range(3):
        text = re.sub(rf"\\(?:{_TEXT_COMMANDS})\s*\{{([^{{}}]*)\}}", r" \1 ", text)
        text = re.sub(r"\\(?:boxed|fbox|underline|ensuremath)\s*\{([^{}]*)\}", r" \1 ", text)
        text = _COLOURED.sub(r" \1 ", text)
    text = re.sub(r"\\(?:overline|widehat|overrightarrow|overleftrightarrow)\s*\{([A-Z]+)\}", r" \1 ", text)
    return re.sub(r"\\(?:angle|triangle|measuredangle)(?![A-Za-z])", " ", text)


def _repeating(match: re.Match) -> str:
    whole, fixed, cycle = match[1] or "0", match[2], match[3]
    scale = 10 ** len(fixed)
    numerator = (int(whole) * scale + int(fixed or 0)) * (10 ** len(cycle) - 1) + int(cycle)
    return rf"\frac{{{numerator}}}{{{scale * (10 ** len(cycle) - 1)}}}"


def _plain_numbers(text: str) -> str:
    r"""Repeating decimals (`0.\overline{3}`, `0.333...`), `60^o`, `5 million`, `USD 5`, `3 sec`, `5C2` and `U` between
    intervals, as the parser spells them."""
    text = re.sub(r"(\d{0,40})\.(\d{0,40})\\(?:overline|bar|dot|overbar)\s*\{(\d{1,40})\}", _repeating, text)
    text = re.sub(r"(\d{0,40})\.(\d{0,40}?)(\d{1,6}?)\3{2,40}(?:\.\.\.|\\[lc]?dots(?![A-Za-z]))", _repeating, text)
    text = re.sub(r"(?<=\d)(?:\s*\^\s*\{?\s*|\s*)(?:st|nd|rd|th)(?![A-Za-z])\s*\}?", " ", text)
    text = re.sub(r"(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o(?![a-z]))", "° ", text)
    text = re.sub(r"(?i)\b([ap])\. ?m\b", r"\1m", text.replace("per cent", "percent"))
    text = re.sub(r"(?<=[A-Za-z]{2})\.(?=[\s,;]|$)", " ", text)
    text = re.sub(r"\b(USD|EUR|GBP)(?=\s*[\d.])", lambda match: _CURRENCIES[match[1]], text)
    text = _SECONDS.sub(r"\1second", digits_for_words(text))
    text = re.sub(r"^\s*(?:\{\s*\})?[_^]?\{?(\d{1,6})\}?\s*C\s*_?\{?(\d{1,6})\}?\s*$", r"\\binom{\1}{\2}", text)
    return re.sub(r"(?<=[)\]])\s*(?:U|union)\s*(?=[(\[])", r" \\cup ", text)


def _unphrase(text: str) -> str:
    """Leading "The answer is", a leading `=`, a trailing full stop; "negative" in front becomes a sign."""
    text = _PREFIX.sub("", text.strip(), count=1) if _PREFIX.match(text.strip()) else text.strip()
    text = re.sub(r"^(?:(?:exactly|only|just)\s+|=\s*(?!=))", "", text.strip())
    text = re.sub(r"^(?:the value of )?([A-Za-z]) (?:is|equals)(?: equal to)? (?=[-\d\\$(])", r"\1=", text, flags=re.I)
    if not text.endswith("..."):
        text = re.sub(r"(?<=\S)\s*[.;,:]+\s*$", "", text)
    return re.sub(r"^(?:negative|minus)\s+", "-", text, flags=re.I)
