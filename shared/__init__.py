"""The matured code of the course, one module a subject: `from shared import load_model, generate, grade`."""

from shared.data import load_math500, load_math_train, load_minimath
from shared.evaluator import Answer, EvalResult, evaluate, extract_answer, grade, render_prompt
from shared.generation import Completion, generate, stream
from shared.loading import export_hf, load_model, save_checkpoint
from shared.model import CausalLM, KVCache, ModelConfig
from shared.tokenizer import Tokenizer

__all__ = [
    "Answer",
    "CausalLM",
    "Completion",
    "EvalResult",
    "KVCache",
    "ModelConfig",
    "Tokenizer",
    "evaluate",
    "export_hf",
    "extract_answer",
    "generate",
    "grade",
    "load_math500",
    "load_math_train",
    "load_minimath",
    "load_model",
    "render_prompt",
    "save_checkpoint",
    "stream",
]
