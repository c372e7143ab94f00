"""The verifier: mathematics read by a parser of our own, compared, graded. Start reading at `grading.py`."""

from shared.grader.grading import extract_answer, grade, normalize_answer
