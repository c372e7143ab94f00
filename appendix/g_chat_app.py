"""The chat page of appendix G: `python3 course.py chat`, or `app.launch()` in a notebook. Taught in appendix G, G.8.

Gradio serves it. Texts are shown as they are and never as Markdown or HTML, and the page may load nothing from another
host: a model's text is not to run in the reader's browser, nor to send the conversation elsewhere as the address of a
picture.
"""

from __future__ import annotations

import html
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: it reports home otherwise
# Gradio asks its own server whether it is up, and must not do so through a proxy.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(
    filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1,localhost,0.0.0.0"])
)

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware

from appendix.g_chat import ChatReply, ChatSettings, Message, answered, status_line, stream_reply
from appendix.g_chat_options import page_parser, settings_from
from appendix.g_chat_terminal import FAILURES
from shared.formats.loading import load_model

MODELS = ("tiny", "smollm2-135m", "qwen3-0.6b")
TITLE = "Chat with a small model"
ABOUT = (
    "**tiny** has learnt arithmetic and algebra, one question at a time: ask *Compute (12+5)\\*7.* It errs, the more "
    "often the higher the temperature, and does not hold a conversation, although it is given all of it. "
    "**smollm2-135m** chats, but is often wrong. **qwen3-0.6b** thinks before it answers, and is downloaded (1.5 GB) "
    "at the first question. Enter sends, Shift+Enter starts a new line."
)
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; form-action 'self'"
)
# The box for the message is closed while an answer comes, and loses the keyboard's focus: give it back. On a narrow
# screen the settings would cover the conversation: begin with them folded.
HEAD = """<script>
new MutationObserver(changes => changes.forEach(({target}) => {
    if (target.tagName === "TEXTAREA" && !target.disabled && document.activeElement === document.body) target.focus();
})).observe(document, {subtree: true, attributes: true, attributeFilter: ["disabled"]});
if (window.innerWidth <= 768) {
    const folding = setInterval(() => {
        const button = document.querySelector(".sidebar.open .toggle-button");
        if (button) {
            clearInterval(folding);
            button.click();
        }
    }, 100);
}
</script>"""
SECONDS_BETWEEN_UPDATES = 0.05

load_once = lru_cache(maxsize=1)(load_model)  # one model in memory: the next one takes its place


def as_plain_text(chatbot: gr.Chatbot) -> gr.Chatbot:
    """Make a conversation show every text letter by letter, the reader's and the model's.

    Gradio's own renders tags, if harmless ones, even without Markdown. The object is changed and not its class,
    because Gradio writes a file beside the source of every class derived from its own.
    """
    to_browser, from_browser = chatbot.postprocess, chatbot.preprocess

    def postprocess(value):
        data = to_browser(value)
        for part in (part for message in data.root for part in message.content):
            part.text = html.escape(part.text, quote=False)
        return data

    def preprocess(payload):
        messages = from_browser(payload)
        for part in (part for message in messages for part in message["content"]):
            part["text"] = html.unescape(part["text"])
        return messages

    chatbot.postprocess, chatbot.preprocess = postprocess, preprocess
    return chatbot


def build_page(models: Sequence[str] = MODELS, settings: ChatSettings | None = None) -> gr.Blocks:
    """The page, not served yet: `build_page().launch(**launch_options())` does that.

    Args:
        models: names or paths that `load_model` takes, to choose from; the first is chosen.
        settings: what the controls show at first.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        with gr.Sidebar(width=340):
            inputs = controls(models, settings or ChatSettings())
            speed = gr.Textbox(label="Length and speed", interactive=False, lines=2)
        gr.ChatInterface(
            respond,
            title=TITLE,
            description=ABOUT,
            chatbot=as_plain_text(
                gr.Chatbot(
                    label="Conversation",
                    render_markdown=False,
                    height="60vh",
                    feedback_options=None,
                    buttons=[],  # Gradio's copy button would copy what the page escapes
                )
            ),
            textbox=gr.Textbox(
                label="Your message", placeholder="Type a message", submit_btn="Send", stop_btn="Stop", autofocus=True
            ),
            additional_inputs=inputs,
            additional_outputs=[speed],
            analytics_enabled=False,
            flagging_mode="never",
            api_visibility="private",
            concurrency_limit=1,  # one answer at a time: further readers wait in a queue
        )
    return page


def controls(models: Sequence[str], settings: ChatSettings) -> list[gr.components.Component]:
    """Everything that `respond` takes after the message and the history."""
    return [
        gr.Dropdown(list(models), value=models[0], label="Model", filterable=False),
        gr.Slider(0, 2, value=settings.temperature, step=0.1, label="Temperature (0 is greedy)"),
        gr.Slider(16, 8192, value=settings.max_new_tokens, step=16, label="Most tokens of an answer"),
        gr.Checkbox(settings.thinking, label="Let it think first (Qwen3)"),
    ]


def respond(
    message: str, history: list[dict], model_name: str, temperature: float, max_new_tokens: int, thinking: bool
) -> Iterator[tuple[list[gr.ChatMessage], str]]:
    """Answer one message: yields what the conversation shows of the reply so far, and the line about it."""
    settings = ChatSettings(temperature, int(max_new_tokens), thinking)
    messages = [*answered(to_messages(history)), {"role": "user", "content": message}]
    yield [], f"Loading {model_name}"
    try:
        model, tokenizer = load_once(model_name)
        replies = stream_reply(model, tokenizer, messages, settings)
        for reply in at_most_every(SECONDS_BETWEEN_UPDATES, replies):
            yield shown(reply), status_line(reply)
    except FAILURES as error:
        yield [gr.ChatMessage(content=str(error), metadata={"title": "No answer"})], "No answer"


def at_most_every(
    seconds: float, replies: Iterator[ChatReply], clock: Callable[[], float] = time.monotonic
) -> Iterator[ChatReply]:
    """The first reply, those that come so long after the one before, and the last: a browser needs no more."""
    due = clock()
    for reply in replies:
        if reply.finished or clock() >= due:
            yield reply
            due = clock() + seconds


def shown(reply: ChatReply) -> list[gr.ChatMessage]:
    """The thinking as a fold-out, open while it goes on, and the answer."""
    thinking, answer, still_thinking = reply.parts
    messages = []
    if thinking:
        folded = {} if still_thinking else {"status": "done"}
        messages.append(gr.ChatMessage(content=thinking, metadata={"title": "Thinking", **folded}))
    if answer:
        messages.append(gr.ChatMessage(content=answer))
    return messages


def to_messages(history: list[dict]) -> list[Message]:
    """What Gradio keeps of a conversation as messages for a model, without fold-outs: thinking and errors."""
    return [
        {"role": each["role"], "content": text_of(each["content"])}
        for each in history
        if not (each.get("metadata") or {}).get("title")
    ]


def text_of(content: str | list[dict]) -> str:
    """The text of a message, which Gradio hands over as a string or in parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


class SameHostOnly:
    """Middleware that forbids the page, by a Content-Security-Policy, to load or send anything elsewhere."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """Pass a request on, with the policy added to the head of the response."""

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, send_with_policy if scope["type"] == "http" else send)


def launch_options(host: str = "127.0.0.1", port: int | None = None, browser: bool = False) -> dict:
    """Arguments for Gradio's `launch`: this machine only unless another host is named, and no public tunnel."""
    return {
        "server_name": host,
        "server_port": port,
        "inbrowser": browser,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "max_file_size": "1kb",
        "footer_links": [],
        "head": HEAD,
        "theme": gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        "app_kwargs": {"middleware": [Middleware(SameHostOnly)]},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; return the exit status."""
    parsed = page_parser().parse_args(arguments)
    models = list(dict.fromkeys([parsed.model, *MODELS]))
    page = build_page(models, settings_from(parsed))
    options = launch_options(parsed.host, parsed.port, not parsed.no_browser)
    try:
        _, address, _ = page.launch(**options, quiet=True, prevent_thread_lock=True)
        print(f"The chat is at {address} (Ctrl-C ends it)", flush=True)
        page.block_thread()
    except OSError:
        place = parsed.host if parsed.port is None else f"{parsed.host}:{parsed.port}"
        print(f"course.py: The page cannot be served at {place}: name another --host or --port.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
