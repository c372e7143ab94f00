"""Checks of the exercises of chapter 8."""

import torch

from shared.checks import Mismatch, expect, register
from shared.distillation import SFTExample
from shared.distillation.examples import sft_completion
from shared.distillation.loss import soft_loss, token_kl
from shared.formats.loading import load_model
from shared.model.transformer import CausalLM

# ---------------------------------------------------------------------------------------- 8.1: length statistics


def _example(prompt_length: int, completion_length: int) -> SFTExample:
    ids = list(range(prompt_length + completion_length))
    return SFTExample("a problem", "a prompt", "a completion", ids, prompt_length)


@register(
    "8.1",
    title="length statistics",
    hint="completion_length counts the end token too; of n sorted lengths, the one at place ceil(0.95 n) is p95",
    hint2="sort example.completion_length of all examples; counted from 0, the p95 is the one at math.ceil(0.95 "
    "* n) - 1",
)
def check_length_statistics(length_statistics):
    """Completions of known lengths, in no order, with prompts that must not count."""
    twenty = [_example(40 + n % 3, n) for n in (*range(11, 21), *range(10, 0, -1))]
    expected = {"examples": 20, "mean": 10.5, "p95": 19, "longest": 20}
    expect(length_statistics(twenty), expected, case="completions of 1 to 20 tokens")
    expected = {"examples": 1, "mean": 7.0, "p95": 7, "longest": 7}
    expect(length_statistics([_example(90, 7)]), expected, case="one completion of 7 tokens")
    three = [_example(5, 3), _example(5, 90), _example(5, 7)]
    expect(
        length_statistics(three),
        {"examples": 3, "mean": 100 / 3, "p95": 90, "longest": 90},
        case="completions of 3, 90 and 7 tokens",
    )
    expect(
        length_statistics([_example(5, n) for n in range(1, 32)]),
        {"examples": 31, "mean": 16.0, "p95": 30, "longest": 31},
        case="completions of 1 to 31 tokens",
    )
    return "prompts are left out, and the 95th percentile is a length that occurs"


# ------------------------------------------------------------------------------------------ 8.2: without the tags

ROW = {"problem": "Compute 2*3+1.", "answer": "7", "thinking": "2*3=6\n6+1=7", "content": "\\boxed{7}"}


@register(
    "8.2",
    title="with and without <think>",
    hint="tags: newline, <think>, newline, thinking, newline, </think>, blank line, content; others drop parts",
    hint2="strip both parts; an empty thinking or the form 'answer' gives ' ' + content; otherwise join '', the "
    "thinking (in tags or not), '' and the content with newlines",
    yourself=(sft_completion,),
)
def check_completion_text(completion_text):
    """Three forms of one row, a row without thinking, and white space around the parts."""
    cases = {
        "tags": "\n<think>\n2*3=6\n6+1=7\n</think>\n\n\\boxed{7}",
        "plain": "\n2*3=6\n6+1=7\n\n\\boxed{7}",
        "answer": " \\boxed{7}",
    }
    for form, text in cases.items():
        expect(completion_text(dict(ROW), form), text, case=f"the form {form!r}")
        expect(
            completion_text({**ROW, "thinking": ""}, form), " \\boxed{7}", case=f"a row without thinking, form {form!r}"
        )
    spaced = {**ROW, "thinking": "\n2*3=6\n6+1=7\n", "content": " \\boxed{7}\n"}
    for form, text in cases.items():
        case = f"white space around thinking and content, form {form!r}"
        expect(completion_text(spaced, form), text, case=case)
    blank = {**spaced, "thinking": " \n"}
    expect(completion_text(blank, "plain"), cases["answer"], case="thinking of white space only")
    return "the same solution in three forms, and no empty tags"


# --------------------------------------------------------------------------------------- 8.3: rejection sampling


def _row(problem: str, content: str, answer: str, finish_reason: str = "stop", tokens: int = 10) -> dict:
    return {
        "problem": problem, "content": content, "answer": answer, "finish_reason": finish_reason, "tokens": tokens,
    }  # fmt: skip


@register(
    "8.3",
    title="rejection sampling",
    hint="extract_answer may give None; grade it against the row's answer; sort by tokens before taking the first",
    hint2="walk through the rows sorted by tokens; keep one if it is finished, extract_answer is not None, "
    "grade(...) accepts it and fewer than `most` of its problem were kept, counted in a dictionary",
)
def check_reject(reject):
    """Right, wrong, equal in value, boxless and unfinished rows; several of one problem; two problems of one answer."""
    right = _row("A", "\\boxed{\\frac{1}{2}}", "0.5", tokens=30)
    shorter = _row("A", "so \\boxed{0.5}", "0.5", tokens=20)
    third = _row("A", "\\boxed{1/2}", "0.5", tokens=40)
    wrong = _row("A", "\\boxed{2}", "0.5", tokens=5)
    boxless = _row("B", "the answer is 3", "3")
    unfinished = _row("B", "\\boxed{3} and", "3", finish_reason="length")
    stopped = _row("B", "so \\boxed{3}", "3", finish_reason="content_filter", tokens=2)
    other = _row("B", "\\boxed{3}", "3")
    alike = _row("C", "\\boxed{3}", "3", tokens=50)
    rows = [right, wrong, boxless, shorter, unfinished, alike, stopped, other, third]
    given = [dict(row) for row in rows]
    of_others = [other, alike]
    cases = {1: [shorter, *of_others], 2: [shorter, right, *of_others], 9: [shorter, right, third, *of_others]}
    for most, kept in cases.items():
        got = reject(rows, most)
        if not isinstance(got, list):
            raise Mismatch("a list of rows", got, f"at most {most} a problem")
        got = sorted(got, key=lambda row: (row["problem"], row["tokens"]))
        expect([row["content"] for row in got], [row["content"] for row in kept], case=f"at most {most} a problem")
        expect(rows == given, True, case="the given rows being left as they are")
    return "right by value, finished, and the shortest of each problem"


# ------------------------------------------------------------------------------------------------ 8.4: soft loss


@register(
    "8.4",
    title="soft loss",
    hint="log_softmax of logits / T; the sum over the vocabulary, weighted by the teacher's probabilities; the mean "
    "where the mask is True, times T squared",
    hint2="the divergence of a position is the sum of exp(theirs) * (theirs - ours) over the last dimension, "
    "with both log_softmax at temperature T and the teacher's logits detached; index with [mask] before "
    "the mean",
    yourself=(soft_loss, token_kl),
)
def check_my_soft_loss(my_soft_loss):
    """Random logits, masks and temperatures, probabilities too small for a float, and no gradient to the teacher."""
    generator = torch.Generator().manual_seed(8)
    student, teacher = (3 * torch.randn(2, 5, 7, generator=generator) for _ in range(2))
    masks = {
        "all tokens": torch.ones(2, 5, dtype=torch.bool),
        "some tokens": torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 1, 1]]).bool(),
    }
    for name, mask in masks.items():
        for temperature in (1.0, 3.0):
            case = f"{name}, temperature {temperature:g}"
            expected = soft_loss(token_kl(student, teacher, temperature), mask, temperature)
            expect(my_soft_loss(student, teacher, mask, temperature), expected, case=case, tolerance=1e-4)
    far = torch.tensor([[[0.0, 300.0], [300.0, 0.0]]]), torch.tensor([[[300.0, 0.0], [300.0, 0.0]]])
    both = torch.ones(1, 2, dtype=torch.bool)
    expect(my_soft_loss(*far, both, 1.0), soft_loss(token_kl(*far), both), case="logits that are 300 apart")
    same = my_soft_loss(teacher, teacher, masks["all tokens"], 2.0)
    expect(same, 0.0, case="a student that equals its teacher", tolerance=1e-5)
    given = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    loss = my_soft_loss(*given, masks["some tokens"], 1.0)
    if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
        raise Mismatch("a tensor through which the gradient flows", loss, "logits with a gradient")
    loss.backward()
    expect(given[0].grad is not None, True, case="a gradient that flows to the student")
    expect(given[1].grad is None, True, case="no gradient flowing to the teacher")
    return "the divergence from the teacher, where the mask is True"


# ------------------------------------------------------------------------------------------- 8.5: fewer layers


def _source(name: str, kept: list[int]) -> str:
    """The name in the whole model of a parameter of the smaller one."""
    kind, _, rest = name.partition(".")
    if kind != "blocks":
        return name
    place, _, rest = rest.partition(".")
    return f"blocks.{kept[int(place)]}.{rest}"


@register(
    "8.5",
    title="fewer layers",
    hint="copy.deepcopy, then choose among its blocks; config.num_layers has to follow",
    hint2="smaller.blocks = torch.nn.ModuleList(the chosen blocks of the copy), and smaller.config = "
    "dataclasses.replace(model.config, num_layers=...)",
)
def check_with_layers(with_layers):
    """Two choices of layers, compared parameter by parameter; the given model must stay as it is."""
    model, _ = load_model("tiny-random")
    with torch.no_grad():
        for norm in (p for p in model.parameters() if p.ndim == 1):
            norm.mul_(1.5)  # all ones in an untrained model: to forget them would not show
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for kept in ([0, 3], [2, 0, 1]):
        smaller = with_layers(model, kept)
        case = f"the layers {kept}"
        if not isinstance(smaller, CausalLM):
            raise Mismatch("a CausalLM", type(smaller).__name__, case)
        expect(len(smaller.blocks), len(kept), case=f"number of layers with {kept}")
        expect(smaller.config.num_layers, len(kept), case=f"config.num_layers with {kept}")
        one_table = smaller.head.weight is smaller.embedding.weight
        expect(one_table, True, case=f"one table for embedding and head with {kept}, as in the given model")
        for name, ours in smaller.named_parameters():
            expect(ours, before[_source(name, kept)], case=f"{case}, {name}")
        with torch.no_grad():
            for parameter in smaller.parameters():
                parameter.zero_()
        untouched = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        expect(untouched, True, case="the given model keeping its weights when the smaller one is trained")
    return "a model of its own, with the chosen layers"
