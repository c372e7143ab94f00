"""Ask every web address in the course's texts whether it answers: `python -m tools.links`."""

from __future__ import annotations

import http.client
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from course import ROOT, course_texts

ADDRESS = re.compile(r"https?://[^\s\"'<>\\)\]}`]+")
LOCAL = ("http://127.0.0.1", "http://localhost")
EXAMPLES = ("http://host:port", "https://example.org")
TIMEOUT = 30
REFUSALS = (403, 405, 429)  # the server is there and does not talk to scripts


def addresses(text: str) -> set[str]:
    """The web addresses in a text, without trailing punctuation, templates, examples and local servers."""
    found = {address.rstrip(".,;:*") for address in ADDRESS.findall(text)}
    return {each for each in found if "{" not in each and not each.startswith(LOCAL + EXAMPLES)}


def problem(address: str) -> str | None:
    """What is wrong with an address, or None if it answers."""
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code in REFUSALS else f"{address}: {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{address}: {error}"


def main() -> int:
    """Check all addresses in Markdown files and notebooks; exit status 1 if one does not answer."""
    texts = [path for path in course_texts(ROOT) if path.suffix in {".md", ".ipynb"}]
    found = sorted(set().union(*(addresses(path.read_text(encoding="utf-8")) for path in texts)))
    with ThreadPoolExecutor(8) as pool:
        problems = [each for each in pool.map(problem, found) if each]
    print("\n".join(problems) or f"{len(found)} addresses answer")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
