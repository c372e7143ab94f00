"""Train the teacher of ch08, a model with twice the layers: `python -m shared.tiny.train_teacher`.

It starts as the base model made deeper: behind every layer stands a copy of it that does nothing yet, since the two
matrices that write into the residual stream are zero there. So the deeper model begins where the base ended
(arXiv:1511.05641), and learns on from documents with every step, all of them right. Writes
`tiny-teacher.safetensors` in bfloat16 and a log; a stopped run goes on from its last checkpoint. See the README
beside this file for what it reached.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from shared.formats.loading import load_model
from shared.formats.weights import save_weights_file
from shared.model.fast import speed_up
from shared.model.transformer import CausalLM
from shared.support.files import atomic_file
from shared.support.progress import print_any_text
from shared.tiny.pretrain import Recipe, train_from


@dataclass(frozen=True)
class TeacherRecipe(Recipe):
    """As the base's recipe, with one phase, and harder problems more often all along."""

    steep_chunks: int = 20
    clean_chunks: int = 20
    mixed_chunks: int = 0
    learning_rate: float = 1.5e-3
    final_rate: float = 0.02
    styles: ClassVar[tuple[str, ...]] = ("think", "cot")

    def phase(self, chunk: int) -> str:
        """The only phase."""
        return "teacher"


def deepened(model: CausalLM) -> CausalLM:
    """A model with twice the layers that computes the same: each new one is a copy whose outputs are zero."""
    deeper = CausalLM(replace(model.config, num_layers=2 * model.config.num_layers))
    weights = model.state_dict()
    with torch.no_grad():
        for name, parameter in deeper.named_parameters():
            kind, layer, *rest = name.split(".")
            new = kind == "blocks" and int(layer) % 2
            if kind == "blocks":
                name = ".".join((kind, str(int(layer) // 2), *rest))
            parameter.copy_(weights[name])
            if new and rest[:2] in (["attention", "out"], ["feed_forward", "down"]):
                parameter.zero_()
    return speed_up(deeper)


def train_teacher(folder: Path, recipe: TeacherRecipe, evaluate_every: int = 5, problems: int = 500) -> CausalLM:
    """Train the teacher in `folder` from the base, or go on with the run that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    base, tokenizer = load_model("tiny")
    model = train_from(deepened(base).train(), tokenizer, folder, recipe, evaluate_every, problems)
    with atomic_file(folder / "tiny-teacher.safetensors") as temporary:
        save_weights_file(temporary, model.to(torch.bfloat16))
    return model.float()


def main() -> None:
    """The command line."""
    print_any_text()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("checkpoints/teacher"), help="folder of the run")
    parser.add_argument("--chunks", type=int, default=TeacherRecipe.clean_chunks, help="chunks of documents")
    parser.add_argument("--seed", type=int, default=TeacherRecipe.seed)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="processor cores to use")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chunks = arguments.chunks
    train_teacher(arguments.out, TeacherRecipe(steep_chunks=chunks, clean_chunks=chunks, seed=arguments.seed))
    print(f"Wrote {arguments.out / 'tiny-teacher.safetensors'}. To ship it, copy it to shared/assets.")


if __name__ == "__main__":
    main()
