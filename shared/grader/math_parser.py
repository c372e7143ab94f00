r"""A parser for mathematics as language models write it: LaTeX, plain text, or a mixture of both.

Why not `sympy.parse_expr`? It hands the text to Python's `eval`, so text from a model runs as a program. Here the text
becomes tokens, and a precedence-climbing parser turns tokens into SymPy objects by calling their constructors with
`evaluate=False`. Nothing is computed while parsing: `9^{9^{9}}` becomes a tree of three numbers. A word or command
that is not in the tables below is an error (`ParseError`), never a name to be looked up.

Covered: numbers, mixed numbers, `\frac`, `\sqrt`, powers, factorials, binomials, implicit multiplication, greek
letters, subscripts, trigonometric and logarithmic functions, absolute value, floor and ceiling, percent and degrees.
Not covered: integrals, sums, limits, derivatives, logic, matrices inside expressions. What lies around an expression
(lists, intervals, equations, units) is read by `answers.py`.

Bounds: `MAX_TOKENS` and `MAX_DIGITS` of `math_tokens.py`, at most `MAX_DEPTH` nested groups. No token is read twice,
so the time is linear in their number and these bounds are bounds on the time. The idea: ch03, sections 3.5 and 3.6.
"""

import re
from collections.abc import Sequence

import sympy

from shared.grader.math_tokens import CONSTANTS, FUNCTIONS, MAX_DIGITS, SETS, STRUCTURES, ParseError, Token

MAX_DEPTH = 50
MAX_SCIENTIFIC = 400  # largest exponent in 1.2e3
_INVERSES = {f: FUNCTIONS[f"arc{f}"] for f in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}
_FUNCTION_LETTERS = "fgFGHIP"  # f(4) is a value of f; h(4) is as likely a height times 4
_PROPER = re.compile(r"frac(?:\{(\d+)\}|(\d))(?:\{(\d+)\}|(\d))")


def add(left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    """A sum that is not worked out; a + b + c is one node, so that a long sum is not a deep tree."""
    return sympy.Add(*(left.args if left.is_Add else (left,)), right, evaluate=False)


def mul(left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    """A product that is not worked out, flat like the sum."""
    return sympy.Mul(*(left.args if left.is_Mul else (left,)), right, evaluate=False)


def power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    """A power that is not worked out."""
    return sympy.Pow(base, exponent, evaluate=False)


def negative(value: sympy.Expr) -> sympy.Expr:
    """Minus `value`; numbers keep being numbers."""
    return -value if isinstance(value, sympy.Rational) or value is sympy.oo else mul(sympy.Integer(-1), value)


def divide(numerator: sympy.Expr, denominator: sympy.Expr) -> sympy.Expr:
    """A quotient that is not worked out."""
    return mul(numerator, power(denominator, sympy.Integer(-1)))


def number(text: str) -> sympy.Rational:
    """`"12"`, `"1.5"` or `"1.2e3"` as an exact rational number."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    shift = int(exponent[:8] or 0) - len(decimals)
    if abs(shift) > MAX_SCIENTIFIC + MAX_DIGITS:
        raise ParseError("exponent too large")
    digits = int((whole + decimals) or 0)
    return sympy.Integer(digits * 10**shift) if shift >= 0 else sympy.Rational(digits, 10**-shift)


_BINARY = {"+": 1, "-": 1, "*": 2, "/": 2}
_CLOSING = {"(": ")", "[": "]", "{": "}", "lfloor": "rfloor", "lceil": "rceil"}


class ExpressionParser:
    """Precedence climbing over a list of tokens; `parse()` must use them all. The idea: ch03, section 3.5."""

    def __init__(self, tokens: Sequence[Token]):
        self.tokens = list(tokens)
        self.position = 0
        self.depth = 0
        self.bars = 0

    def parse(self) -> sympy.Expr:
        """The expression that all tokens make up. Raises ParseError if they do not make one."""
        value = self.infix()
        if self.position < len(self.tokens):
            raise ParseError(f"unexpected {self.tokens[self.position].text!r}")
        return value

    def peek(self, offset: int = 0) -> Token:
        """The next token, or an end mark."""
        place = self.position + offset
        return self.tokens[place] if place < len(self.tokens) else Token("end", "")

    def accept(self, *texts: str) -> Token | None:
        """Take the next token if it is one of these operators."""
        token = self.peek()
        if token.kind == "op" and token.text in texts:
            self.position += 1
            return token
        return None

    def expect(self, text: str) -> None:
        """Take this operator or fail."""
        if not self.accept(text):
            raise ParseError(f"expected {text!r} before {self.peek().text!r}")

    def enter(self) -> None:
        """Count one more nested part."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ParseError("nested too deeply")

    def binary(self, level: int) -> sympy.Expr:
        """Sums (level 1) of products (level 2) of signed powers; an invisible sign is a product too."""
        self.enter()
        left = self.signed()
        while True:
            token = self.peek()
            if token.kind == "op" and _BINARY.get(token.text, 0) >= level:
                self.position += 1
                right = self.signed() if token.text in "*/" else self.binary(2)
                left = self.combine(token.text, left, right)
            elif level <= 2 and self.starts_factor():
                left = mul(left, self.postfix())
            else:
                self.depth -= 1
                return left

    def infix(self) -> sympy.Expr:
        r"""A sum, or one of TeX's two-part forms: `{n \choose k}`, `{a \over b}`."""
        value = self.binary(1)
        if self.accept("choose"):
            return sympy.binomial(value, self.binary(1), evaluate=False)
        return divide(value, self.binary(1)) if self.accept("over") else value

    @staticmethod
    def combine(operator: str, left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
        """Apply one of + - * /."""
        if operator in "*/":
            return mul(left, right) if operator == "*" else divide(left, right)
        return add(left, right if operator == "+" else negative(right))

    def signed(self) -> sympy.Expr:
        """A power with any signs before it: -x^2 is -(x^2)."""
        minus = False
        while token := self.accept("+", "-"):
            minus ^= token.text == "-"
        value = self.postfix()
        return negative(value) if minus else value

    def starts_factor(self) -> bool:
        """Whether the next token begins a factor with no sign of multiplication before it: 2x, 3(x+1), x y."""
        token = self.peek()
        if token.kind == "num":
            before = self.tokens[self.position - 1]
            after_power = self.position > 1 and self.tokens[self.position - 2].text == "^"
            if token.spaced and (before.kind == "var" or after_power):  # `x 3` and `2^6 3^5`
                return True
            return before.text in (")", "}", "]", "!") or before.kind == "const"
        if token.kind in ("var", "func"):
            return True
        if token.kind == "const":
            return token.text not in SETS.values()
        opening_bar = token.text == "|" and not self.bars and token.kind == "op"
        return opening_bar or token.text in ("(", "{", "lfloor", "lceil")

    def postfix(self) -> sympy.Expr:
        """A primary with what follows it: x!, x^2, 30°, 12%."""
        value, count = self.primary(), 0
        while token := self.accept("^", "!", "°", "%"):
            count += 1
            if count > 4 or (token.text == "!" and self.peek().text == "!"):
                raise ParseError("too many signs behind one value")
            if token.text == "^":
                value = power(value, self.exponent())
            elif token.text == "!":
                value = sympy.factorial(value, evaluate=False)
            elif token.text == "%":
                value = divide(value, sympy.Integer(100))
            else:
                value = divide(mul(value, sympy.pi), sympy.Integer(180))
        return value

    def exponent(self) -> sympy.Expr:
        """What stands behind ^; powers go to the right: 2^3^2 is 2^(3^2)."""
        self.enter()
        minus = self.accept("-")
        value = self.primary()
        if self.accept("!"):
            value = sympy.factorial(value, evaluate=False)
        if self.accept("^"):
            value = power(value, self.exponent())
        self.depth -= 1
        return negative(value) if minus else value

    def primary(self) -> sympy.Expr:
        """A number, a name, a function call or a group."""
        token = self.peek()
        self.position += 1
        if token.kind == "num":
            return self.mixed_number(token)
        if token.kind == "var":
            return self.variable(token.text)
        if token.kind == "const" and token.text in CONSTANTS:
            return CONSTANTS[token.text]
        if token.kind == "func":
            return self.structure(token.text) if token.text in STRUCTURES else self.function(token.text)
        if token.kind == "op" and token.text in _CLOSING:
            return self.group(token.text)
        if token.kind == "op" and token.text == "|":
            self.bars += 1
            value = self.binary(1)
            self.bars -= 1
            self.expect("|")
            return sympy.Abs(value, evaluate=False)
        raise ParseError(f"unexpected {token.text or 'end'!r}")

    def group(self, opening: str) -> sympy.Expr:
        """The inside of a bracket; floor and ceiling brackets are functions."""
        bars, self.bars = self.bars, 0
        value = self.infix() if opening == "{" else self.binary(1)
        self.expect(_CLOSING[opening])
        self.bars = bars
        wrap = {"lfloor": sympy.floor, "lceil": sympy.ceiling}.get(opening)
        return wrap(value, evaluate=False) if wrap else value

    def mixed_number(self, token: Token) -> sympy.Expr:
        r"""A number; with a proper fraction right behind it (`3\frac{1}{2}`, `3 1/2`), one mixed number."""
        value = number(token.text)
        following = self.tokens[self.position : self.position + 7]
        if not value.is_Integer or not following:
            return value
        match = _PROPER.match("".join(item.text for item in following))
        if following[0].text == "frac" and match and int(match[1] or match[2]) < int(match[3] or match[4]):
            self.position += 1
            self.structure("frac")
            return value + sympy.Rational(int(match[1] or match[2]), int(match[3] or match[4]))
        kinds = [item.kind for item in following[:3]]
        if kinds == ["num", "op", "num"] and following[0].spaced and following[1].text == "/":
            top, bottom = number(following[0].text), number(following[2].text)
            if top.is_Integer and bottom.is_Integer and 0 < top < bottom:
                self.position += 3
                return value + top / bottom
        return value

    def variable(self, name: str) -> sympy.Expr:
        """A symbol with its subscript; C(n, k) is a binomial, and f(4) one value and no product."""
        if name == "C" and self.accept("("):
            top = self.binary(1)
            bottom = self.binary(1) if self.accept(",") else None
            self.expect(")")
            return mul(sympy.Symbol(name), top) if bottom is None else sympy.binomial(top, bottom, evaluate=False)
        if self.accept("_"):
            name += "_" + self.subscript()
        if self.accept("'"):
            name += "'"
        if name[0] in _FUNCTION_LETTERS and self.peek().text == "(" and self.peek(2).text == ")":
            argument, self.position = self.peek(1), self.position + 3
            if argument.kind not in ("num", "var", "const"):
                raise ParseError(f"{name} of {argument.text!r}")
            name += f"({argument.text})"
        return sympy.Symbol(name)

    def subscript(self) -> str:
        """The text of a subscript, up to 20 tokens."""
        if not self.accept("{"):
            self.position += 1
            return self.tokens[self.position - 1].text if self.position <= len(self.tokens) else ""
        start = self.position
        while not self.accept("}"):
            if self.peek().kind == "end" or self.position - start > 20:
                raise ParseError("subscript does not end")
            self.position += 1
        return "".join(token.text for token in self.tokens[start : self.position - 1])

    def structure(self, name: str) -> sympy.Expr:
        r"""`\frac`, `\sqrt` and `\binom` with their arguments."""
        if name == "cbrt":
            return power(self.argument(), sympy.Rational(1, 3))
        if name == "sqrt":
            index = sympy.Integer(2)
            if self.accept("["):
                index = self.binary(1)
                self.expect("]")
            return power(self.argument(), divide(sympy.Integer(1), index))
        if name == "binom" and self.accept("("):
            top = self.binary(1)
            self.expect(",")
            bottom = self.binary(1)
            self.expect(")")
            return sympy.binomial(top, bottom, evaluate=False)
        top, bottom = self.argument(digit=True), self.argument(digit=True)
        return divide(top, bottom) if name == "frac" else sympy.binomial(top, bottom, evaluate=False)

    def argument(self, digit: bool = False) -> sympy.Expr:
        r"""A group or a single item; `digit` takes one digit of a number, as TeX does: `\frac12` is one half."""
        token = self.peek()
        if digit and token.kind == "num" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.position] = Token("num", token.text[1:])
            return sympy.Integer(int(token.text[0]))
        if token.kind == "num":
            self.position += 1
            return number(token.text)
        self.enter()
        value = self.primary()
        self.depth -= 1
        return value

    def function(self, name: str) -> sympy.Expr:
        r"""A named function: `\sin x`, `\sin 2x`, `\sin^2 x`, `\log_2 8`, `sin(x)`."""
        base = exponent = None
        while token := self.accept("_", "^"):
            if token.text == "_":
                base = self.argument()
            else:
                exponent = self.exponent()
        argument = self.function_argument()
        if exponent == -1 and name in _INVERSES:
            return _INVERSES[name](argument, evaluate=False)
        if name in ("log", "lg", "ln"):
            value = sympy.log(argument, evaluate=False)
            default = None if name == "ln" else sympy.Integer(10)
            base = base if base is not None else default
            value = value if base is None else divide(value, sympy.log(base, evaluate=False))
        else:
            value = FUNCTIONS[name](argument, evaluate=False)
        return value if exponent is None else power(value, exponent)

    def function_argument(self) -> sympy.Expr:
        """A bracket, or the product up to the next function or sign: sin 2x cos x is sin(2x) cos(x)."""
        self.enter()
        if self.peek().text in ("(", "{", "["):
            value = self.primary()
        else:
            minus = self.accept("-")
            value = self.postfix()
            while self.starts_factor() and (self.peek().kind != "func" or self.peek().text in STRUCTURES):
                value = mul(value, self.postfix())
            value = negative(value) if minus else value
        self.depth -= 1
        return value
