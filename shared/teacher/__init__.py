"""Data for distillation from a teacher: its verified solutions, one a line. Taught in ch08, section 8.3.

Each problem is asked several times, and the answers that the verifier accepts are kept: rejection sampling, as in RFT
(arXiv:2308.01825) and in DeepSeek-R1's distillation (arXiv:2501.12948). The teacher is any model of ours; appendix H
asks a server. From the command line: `python -m shared.teacher data.jsonl --model tiny --limit 500 --samples 4`.
"""

from shared.generation.prompts import Parts, split_thinking
from shared.teacher.local import ask_model
from shared.teacher.replies import Reply, is_kept, make_reply, make_row
from shared.teacher.samples import SamplesFile, Tally
