"""Text to token ids and back, special tokens, and the chat format. Used in ch02 and appendix G."""

import json
import re
import warnings
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path

import tokenizers
from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.support.files import read_json

THINK_TAGS = ("<think>", "</think>")
PLAIN = (
    "A chat model is asked in plain text, which it was not trained on: make prompts by render_prompt(problem, style, "
    "tokenizer) or tokenizer.apply_chat_template, or set tokenizer.is_chat = False."
)
RESTORE = "restore it with git checkout or download it again"
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Tokenizer:
    """A byte-pair tokenizer (arXiv:1508.07909) with the special tokens of its model.

    Attributes:
        eos_id: the token that ends a text. In one family the base models may have another than the chat models.
        pad_id: fills up short rows of a batch; `eos_id` where the model names none.
        stop_ids: every token that ends a text, `eos_id` first.
        chat_template: Jinja text of the chat format, or None.
        is_chat: whether the model is asked in that format. Base models often have a template too, but only a chat
            model's ends a turn with its end token. Set it if you know better.

    Raises ValueError if a named special token is not in the vocabulary.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        eos: str = "<|endoftext|>",
        pad: str | None = None,
        *,
        bos: str | None = None,
        stop: Iterable[int] = (),
        chat_template: str | None = None,
    ):
        if not isinstance(backend, tokenizers.Tokenizer):
            raise ValueError(f"backend is {backend!r}: give a tokenizers.Tokenizer, or call Tokenizer.from_file(path).")
        # Some programs save how they once cut and padded a batch, which no text of ours is to be.
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.eos_id = self.token_id(eos)
        self.pad_id = self.token_id(pad or eos)
        self.bos_id = None if bos is None else self.token_id(bos)
        self.stop_ids = tuple(dict.fromkeys((self.eos_id, *stop)))
        self.chat_template = chat_template
        added = sorted(backend.get_added_tokens_decoder().items())
        self._hidden = {i for i, token in added if token.special and token.content not in THINK_TAGS}
        self._special = {token.content: i for i, token in added if token.special or token.content in THINK_TAGS}
        sample = backend.encode("a")
        self._start = sample.ids[: [*sample.special_tokens_mask, 0].index(0)]  # what comes before the text itself
        self.is_chat = self._ends_turns()

    @classmethod
    def from_file(cls, path: str | Path, **options) -> "Tokenizer":
        """Read a `tokenizer.json`; `options` are those of the constructor."""
        return cls(_read_backend(Path(path)), **options)

    @classmethod
    def from_pretrained_folder(cls, folder: str | Path) -> "Tokenizer":
        """Read `tokenizer.json` and, beside it, what transformers saves: special tokens and chat template."""
        folder = Path(folder)
        backend = _read_backend(folder / "tokenizer.json")
        settings = read_json(folder / "tokenizer_config.json")
        special = {name: _content(settings.get(f"{name}_token")) for name in ("eos", "pad", "bos")}
        stop = _end_ids(folder / "generation_config.json")
        if special["eos"] is None:
            stop = stop or _end_ids(folder / "config.json")
            if not stop:
                raise ValueError(f"No file in {folder} names the end token: add eos_token to tokenizer_config.json.")
            special["eos"] = backend.id_to_token(stop[0]) or f"number {stop[0]}"
        return cls(backend, **special, stop=stop, chat_template=_chat_template(folder, settings))

    @property
    def vocab_size(self) -> int:
        """How many tokens there are; a model's own `vocab_size` may be rounded up from it."""
        return self.backend.get_vocab_size()

    @property
    def special_tokens(self) -> dict[str, int]:
        """The tokens that are no text but signs (the end of a turn, `<think>` tags), with their ids."""
        return dict(self._special)

    def token_id(self, token: str) -> int:
        """Id of one token given by its exact text."""
        found = self.backend.token_to_id(token)
        if found is None:
            raise ValueError(f"The token {token!r} is not in the vocabulary: name one that is in tokenizer.json.")
        return found

    def encode(self, text: str, add_special_tokens: bool = True, *, continues: bool = False) -> list[int]:
        """Token ids of a text, with what its model wants in front, such as `<s>`, unless it begins with such a sign.

        `continues` is for a text that goes on from another: nothing is put in front. Raises ValueError for no text.
        """
        if not isinstance(text, str):
            raise ValueError(f"{repr(text)[:60]} is no text: give a prompt, such as render_prompt(problem['problem']).")
        ids = (self._continuing if continues else self.backend).encode(text, add_special_tokens=False).ids
        bare = continues or not add_special_tokens or (ids and ids[0] in self._hidden)
        return ids if bare else self._start + ids

    @cached_property
    def _continuing(self) -> tokenizers.Tokenizer:
        """The backend without the space that SentencePiece's rules put before a text."""
        rules = str(self.backend.normalizer) + str(self.backend.pre_tokenizer)
        if not re.search(r"Prepend|Metaspace|add_prefix_space=True", rules):
            return self.backend
        return tokenizers.Tokenizer.from_str(json.dumps(json.loads(self.backend.to_str(), object_hook=_without_prefix)))

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids. Special tokens are left out unless asked for; `<think>` tags always stay."""
        ids = [int(i) for i in ids]
        if skip_special_tokens:
            ids = [i for i in ids if i not in self._hidden]
        return self.backend.decode(ids, skip_special_tokens=False)

    def apply_chat_template(
        self, messages: list[dict], add_generation_prompt: bool = True, enable_thinking: bool | None = None, **variables
    ) -> str:
        """The text of a conversation in the format that the chat model was trained on.

        Args:
            messages: dicts with "role" ("system", "user" or "assistant") and "content".
            add_generation_prompt: end with the opening of the assistant's turn.
            enable_thinking: Qwen3's switch; None leaves it to the template (there: thinking).
            variables: further variables of the template, such as `tools`.

        Raises ValueError if there is no template or no message, or the template refuses the messages.
        """
        if self.chat_template is None:
            raise ValueError("This tokenizer has no chat template: load a chat model, or set tokenizer.chat_template.")
        if not messages:
            raise ValueError("There are no messages: give at least one, such as {'role': 'user', 'content': 'Hi'}.")
        variables = {"tools": None, **self._named_tokens(), **variables}
        if enable_thinking is not None:
            variables["enable_thinking"] = enable_thinking
        try:
            template = _compile_template(self.chat_template)
            return template.render(messages=messages, add_generation_prompt=add_generation_prompt, **variables)
        except (TemplateError, TypeError, KeyError) as error:
            raise ValueError(f"The chat template cannot show these messages ({error}): check each one.") from error

    def _ends_turns(self) -> bool:
        """Whether a turn of the chat format ends with the token that ends a text."""
        if self.chat_template is None:
            return False
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        try:
            text = self.apply_chat_template(turns, add_generation_prompt=False)
        except ValueError:
            return False
        return self.backend.id_to_token(self.eos_id) in text.rpartition("Hello")[2]

    def warn_if_plain(self, prompts: Iterable[str]) -> None:
        """Say once that a chat model is being asked without its chat format, in which there is a special token."""
        if self.is_chat and not all(any(token in prompt for token in self._special) for prompt in prompts):
            warnings.warn(PLAIN, stacklevel=4)

    def _named_tokens(self) -> dict[str, str]:
        ids = {"eos_token": self.eos_id, "pad_token": self.pad_id, "bos_token": self.bos_id}
        return {name: self.backend.id_to_token(i) for name, i in ids.items() if i is not None}

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` as transformers reads them."""
        folder = Path(folder)
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8", newline="\n")
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self._named_tokens(),
        }
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {RESTORE}.")
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} is damaged ({error}): {RESTORE}.") from error


def _without_prefix(rule: dict) -> dict:
    """A rule of a tokenizer.json, or another part of it, so that no space is put before a text."""
    never = {"prepend": "", "prepend_scheme": "never", "add_prefix_space": False}
    return rule | {name: never[name] for name in rule.keys() & never if isinstance(rule.get("type"), str)}


def _content(token: str | dict | None) -> str | None:
    """A special token's text; some files write it as a dict with its matching rules."""
    return token["content"] if isinstance(token, dict) else token


def _end_ids(path: Path) -> list[int]:
    """A file's `eos_token_id`, which is one id or a list of them, or none."""
    ids = read_json(path).get("eos_token_id")
    if ids is None:
        return []
    return ids if isinstance(ids, list) else [ids]


def _chat_template(folder: Path, settings: dict) -> str | None:
    """A file of its own in newer folders, in older ones a setting: one template or a list of named ones."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        return next((each["template"] for each in template if each["name"] == "default"), None)
    return template


class _Generation(Extension):
    """The tag `{% generation %}`, with which some templates mark the assistant's text: show its body."""

    tags = {"generation"}  # noqa: RUF012 (the name and kind that Jinja reads)

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(value, ensure_ascii=False, **options) -> str:  # Jinja's own filter escapes HTML characters
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


@lru_cache(maxsize=8)
def _compile_template(text: str):
    """Compile in a sandbox, since a template is foreign code, with the settings it was written for."""
    tags = [_Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=tags)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(text)
