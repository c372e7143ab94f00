"""Data for distillation from a teacher: its verified solutions, one a line. Taught in ch08.

A teacher is any model of ours (`ask_model`) or any server with the OpenAI interface (`ask_server`). Each problem is
asked several times, and the answers that the verifier accepts are kept: rejection sampling, as in RFT
(arXiv:2308.01825) and in DeepSeek-R1's distillation (arXiv:2501.12948). From the command line:

    python -m shared.teacher data.jsonl --model tiny --limit 500 --samples 4
    python -m shared.teacher data.jsonl --server qwen3:8b --limit 500    # with OPENAI_BASE_URL and OPENAI_API_KEY
"""

from shared.teacher.local import ask_model
from shared.teacher.protocol import Server
from shared.teacher.samples import Reply, Tally, split_thinking
from shared.teacher.server import ask_server, ask_server_async

__all__ = ["Reply", "Server", "Tally", "ask_model", "ask_server", "ask_server_async", "split_thinking"]
