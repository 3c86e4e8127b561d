"""What a licence, by the name a model card gives it, allows."""

from __future__ import annotations

_FREE = (
    "apache-2.0 mit bsd bsd-2-clause bsd-3-clause isc unlicense wtfpl zlib cc0-1.0 cc-by-4.0 cc-by-3.0 cc-by-sa-4.0 "
    "gpl-3.0 gpl-2.0 gpl lgpl-3.0 agpl-3.0 mpl-2.0 openrail creativeml-openrail-m bigscience-openrail-m"
)


def allows_commercial(license: str | None) -> bool | None:
    """Tell whether a licence, by the name a card gives it, allows commercial use; None where that is unclear.

    >>> allows_commercial("Apache-2.0"), allows_commercial("cc-by-nc-4.0"), allows_commercial("other")
    (True, False, None)
    """
    name = (license or "").casefold()
    if any(mark in name for mark in ("-nc", "noncommercial", "non-commercial", "research")):
        return False
    return True if name in _FREE.split() else None
