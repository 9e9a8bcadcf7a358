"""How the tests are spread over processes: a file goes to one of them, since its tests share servers; the longest files begin first, or one
process would still be busy with them when the others have nothing left. Rows of faults share nothing, nor do sections of a document: they
are spread one by one."""

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

LONGEST = (
    "test_faults_service",
    "test_faults",
    "test_page",
    "test_supervisord_split",
    "test_supervisord",
    "test_legacy_drivers",
    "test_limits",
)
"""In the order in which they begin; all others follow as they come."""


ALONE = ("tests/test_faults", "tests/test_docs_operations")
"""How files begin whose tests are given out one by one."""


class Spread(LoadFileScheduling):  # type: ignore[misc]
    """Gives out files, but what shares nothing one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(ALONE) else str(super()._split_scope(nodeid))


def order(items: list[pytest.Item]) -> None:
    """Put those of the longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))
