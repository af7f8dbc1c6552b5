"""`fedtalk doctor`: what this machine can run, and what to do about the rest."""

from __future__ import annotations

import json as json_text

from fedtalk.planning.doctor import as_dicts, examine


def doctor(json: bool = False, cache_dir: str = ".cache/fedtalk") -> None:
    """Print what this machine can run, a line each: ok, or missing with what to do. Nothing is downloaded.

    Args:
        json: print one JSON list instead of lines.
        cache_dir: folder of prepared clips, which must be writable.
    """
    findings = examine(cache_dir)
    print(json_text.dumps(as_dicts(findings)) if json else "\n".join(map(str, findings)))
