r"""Numbers written as words at the start of an answer: `five`, `twenty-one`, `two thirds`, `5 million`, `half`."""

import re

_SMALL_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10,
}  # fmt: skip
_SMALL = {name: value for value, name in enumerate(_SMALL_NAMES.split())}
_TENS = {name: 10 * value for value, name in enumerate(_TENS_NAMES.split(), start=2)}
_ANY_SMALL, _ANY_TENS, _ANY_PART = ("|".join(table) for table in (_SMALL, _TENS, _PARTS))
_LEADING = re.compile(
    rf"^(-?)(?:({_ANY_TENS})(?:[- ]({_ANY_SMALL}))?|({_ANY_SMALL})(?:[- ]({_ANY_PART})s?)?|(half))(?![\w-])",
    re.IGNORECASE,
)
_SCALE = re.compile(rf"(?<=[\d}}])\s*({'|'.join(_SCALES)})(?![A-Za-z])", re.IGNORECASE)


def digits_for_words(text: str) -> str:
    r"""Write the number word an answer starts with in digits, and scale words as powers of ten.

    `"twenty-one"` becomes `"21"`, `"two thirds"` `"\frac{2}{3}"`, `"5 million"` `"5 \cdot 10^{6}"`.
    """
    text = _SCALE.sub(lambda match: rf" \cdot 10^{{{_SCALES[match[1].lower()]}}} ", _LEADING.sub(_leading_digits, text))
    return re.sub(r"(?<=\d)\s*dozen(?![A-Za-z])", r" \\cdot 12 ", text)


def _leading_digits(match: re.Match) -> str:
    sign, tens, ones, small, part, _ = (group and group.lower() for group in match.groups())
    if tens:
        return f"{sign}{_TENS[tens] + _SMALL.get(ones, 0)}"
    if small and not part:
        return f"{sign}{_SMALL[small]}"
    return rf"{sign}\frac{{{_SMALL[small] if small else 1}}}{{{_PARTS[part] if part else 2}}}"
