"""What memory GRPO of Qwen3-0.6B takes, part by part, and whether a measurement agrees.

    python -m benchmarks.grpo_memory                     the table for 8 rollouts of 512 tokens, from the formulas
    python -m benchmarks.grpo_memory --measure           the same on a GPU if there is one, else a smaller model's
                                                         in fp32 on the processor, beside the formulas' figures
    python -m benchmarks.grpo_memory --measure --real    Qwen3-0.6B's shape with LoRA, on a processor too: an hour where
                                                         bfloat16 is slow

All rollouts in one micro-batch, which is the worst case: smaller ones take less, and the update is the same. A GB is
10^9 bytes. The figures are upper bounds: what lives at different times within an update is added up where that is
simpler. On a GPU torch's own overhead (about 0.5 GB of CUDA context) comes on top.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from appendix.d_estimates import QWEN3, adapter_count, kv_cache_bytes_per_token, parameter_count
from shared.generation.logprobs import CHUNK_LOGITS, recomputed_blocks, token_logprobs
from shared.model.lora import add_lora
from shared.model.transformer import CausalLM, ModelConfig

QWEN3_06B = QWEN3["0.6B"]
# For the processor: small enough for seconds, with logits that outweigh everything else as in the real one.
SCALED_DOWN = ModelConfig(
    vocab_size=40_000,
    hidden_size=128,
    intermediate_size=384,
    num_layers=8,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    context_length=1024,
)
GOAL = 8e9  # bytes
RANK = 16


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        weights: "fp32", "autocast" (bfloat16 over fp32 weights), or "lora" (adapters over frozen bfloat16 weights).
        chunked: log-probabilities in chunks, or all logits at once.
        recomputed: every block's activations are computed again in the backward pass, or kept.
    """

    weights: str
    chunked: bool
    recomputed: bool

    @property
    def name(self) -> str:
        """For the table."""
        train = {"fp32": "full, fp32", "autocast": "full, bf16 autocast", "lora": f"LoRA {RANK}, bf16 base"}
        logits = "chunked" if self.chunked else "plain"
        return f"{train[self.weights]:<20} {logits:<8} {'recomputed' if self.recomputed else 'kept':<11}"


WAYS = [
    Way(weights, chunked, recomputed)
    for weights in ("fp32", "autocast", "lora")
    for chunked, recomputed in ((False, False), (True, False), (False, True), (True, True))
]


# --- formulas -------------------------------------------------------------------------------------------------


def parameters(config: ModelConfig) -> tuple[int, int]:
    """How many weights there are, and how many a LoRA of rank `RANK` trains."""
    return parameter_count(config), adapter_count(config, RANK)


def block_bytes(config: ModelConfig, way: Way) -> int:
    """What one block keeps of a token for the backward pass, in bytes."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    size = 4 if way.weights == "fp32" else 2
    # Inputs of the two projections that follow a norm; joint projection; rotated queries and keys; mixed values;
    # gate, up, the gate after SiLU, and their product.
    computed = size * (2 * hidden + (queries + 2 * keys) + (queries + keys) + queries + 4 * inner)
    # The norms compute in fp32 and keep their input, and what a trainable weight was multiplied with.
    norms = 4 * (2 * hidden if way.weights == "lora" else 4 * hidden) + 4 * (queries + keys)
    if way.weights == "autocast":
        norms += size * (queries + keys)
    statistics = 4 * (2 + 2 * config.num_heads + config.num_kv_heads)
    adapters = 4 * RANK * size if way.weights == "lora" else 0
    return computed + norms + statistics + adapters


def estimate(config: ModelConfig, way: Way, rollouts: int, length: int) -> dict[str, float]:
    """Bytes of every part, and the peak: the larger of generation and update."""
    count, adapters = parameters(config)
    lora, tokens = way.weights == "lora", rollouts * length
    trained = adapters if lora else count
    stored = 2 if lora else 4  # of the weights, and of the cache that takes after them
    parts = {
        "weights": stored * count + 4 * adapters * lora,
        "copies": 2 * count if way.weights == "autocast" else 0,  # in bfloat16, while autocast is on
        "gradients": 4 * trained,
        "moments": 8 * trained,
        "blocks": block_bytes(config, way) * tokens * config.num_layers,
        "logits": logits_bytes(config, way, tokens),
        "cache": tokens * kv_cache_bytes_per_token(config, stored),
    }
    if way.recomputed:
        inputs = (2 if lora else 4) * config.hidden_size * tokens * config.num_layers
        parts["blocks"] = inputs + block_bytes(config, way) * tokens
    static = parts["weights"] + parts["moments"]
    update = parts["copies"] + parts["gradients"] + parts["blocks"] + parts["logits"]
    return parts | {"peak": static + max(update, parts["cache"])}


def logits_bytes(config: ModelConfig, way: Way, tokens: int) -> int:
    """Log-softmax and its two gradients in fp32, of all tokens or a chunk; and the gradient of the head's weight."""
    chunk = min(tokens, CHUNK_LOGITS // config.vocab_size) if way.chunked else tokens
    head = 0 if way.weights == "lora" else 4 * config.vocab_size * config.hidden_size
    return 12 * chunk * config.vocab_size + head


# --- measurement ----------------------------------------------------------------------------------------------


def plain_logprobs(model: CausalLM, input_ids: Tensor) -> Tensor:
    """As `token_logprobs`, with the logits of all tokens at once."""
    logprobs = model(input_ids)[:, :-1].float().log_softmax(dim=-1)
    return logprobs.gather(-1, input_ids[:, 1:].unsqueeze(-1)).squeeze(-1)


def build(config: ModelConfig, way: Way, device: torch.device) -> tuple[CausalLM, torch.optim.Optimizer]:
    """A model with random weights and its optimiser."""
    with device:
        model = CausalLM(config)
    if way.weights == "lora":
        model = add_lora(model.to(torch.bfloat16), RANK)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trainable, lr=1e-6, fused=True)


def update(model: CausalLM, optimizer: torch.optim.Optimizer, way: Way, input_ids: Tensor) -> None:
    """One step of training."""
    autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=way.weights == "autocast")
    with autocast, recomputed_blocks(model) if way.recomputed else nullcontext():
        logprobs = (token_logprobs if way.chunked else plain_logprobs)(model, input_ids)
    (-logprobs.mean()).backward()
    optimizer.step()
    optimizer.zero_grad()


def fill_cache(model: CausalLM, input_ids: Tensor) -> None:
    """What generation holds at its end."""
    with torch.inference_mode():
        model.hidden_states(input_ids, model.new_cache(*input_ids.shape))


def measured_peak(config: ModelConfig, way: Way, rollouts: int, length: int) -> float:
    """Peak in bytes of two steps in this process: exact on a GPU, resident memory above the start's elsewhere."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = peak_so_far(device)
    model, optimizer = build(config, way, device)
    input_ids = torch.randint(config.vocab_size, (rollouts, length), device=device)
    for _ in range(2):  # the first makes the optimiser's moments
        fill_cache(model, input_ids)
        update(model, optimizer, way, input_ids)
    return peak_so_far(device) - before


def peak_so_far(device: torch.device) -> float:
    """The most bytes in use since this process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def give_back_what_is_freed() -> None:
    """Let glibc do so in processes that start from now on, else peaks add up."""
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "0")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "65536")


def in_own_process(function: Callable[..., float], *arguments) -> float:
    """The result of a function in a process of its own, so that each measurement starts at nothing."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# --- command line ---------------------------------------------------------------------------------------------


def line(name: str, parts: dict[str, float], measured: float | None) -> str:
    """One line of the table, in GB."""
    numbers = "".join(f"{value / 1e9:>11.2f}" for value in parts.values())
    mark = "" if measured is not None or parts["peak"] > GOAL else "  below the goal"
    return f"{name}{numbers}{mark if measured is None else f'{measured / 1e9:>11.2f}'}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--length", type=int, default=512, help="tokens of a rollout and its prompt")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--real", action="store_true", help="Qwen3-0.6B's shape on a processor too, the last way")
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    config = SCALED_DOWN if arguments.measure and not (gpu or arguments.real) else QWEN3_06B
    ways = WAYS if config is QWEN3_06B else [way for way in WAYS if way.weights == "fp32"]
    give_back_what_is_freed()
    where = torch.cuda.get_device_name() if gpu else "processor"
    model = "Qwen3-0.6B" if config is QWEN3_06B else "scaled-down model"
    print(f"{model}: {parameters(config)[0] / 1e6:.0f} M weights, {arguments.rollouts} rollouts of ", end="")
    print(f"{arguments.length} tokens; GB; torch {torch.__version__}" + f", {where}" * arguments.measure)
    names = [*estimate(config, WAYS[0], 1, 1), *["measured"] * arguments.measure]
    print(f"{'training':<20} {'logits':<8} {'activations':<11}" + "".join(f"{name:>11}" for name in names))
    for way in ways[-1:] if arguments.real and not gpu else ways:  # a processor would take days for all of them
        size = (arguments.rollouts, arguments.length)
        measured = in_own_process(measured_peak, config, way, *size) if arguments.measure else None
        print(line(way.name, estimate(config, way, *size), measured), flush=True)


if __name__ == "__main__":
    main()
