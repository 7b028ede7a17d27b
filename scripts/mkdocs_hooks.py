"""Links from docs/ to other files of the repository, on the documentation site."""

from __future__ import annotations

from typing import Any


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Let links such as ``../benchmarks/a.py`` lead to the repository."""
    return markdown.replace("](../", f"]({config.repo_url}/blob/main/")
