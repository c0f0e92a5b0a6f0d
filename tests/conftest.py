"""Fixtures that every test may ask for, and how properties are tried."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.mongod import db_name, mongo_uri, standalone_mongo_uri

__all__ = ["db_name", "mongo_uri", "standalone_mongo_uri"]

# No test is about time: how long a case takes depends on what else the machine does. The same cases every time, so that
# a run tells of the change that was made; `--hypothesis-profile=search` looks for new ones.
settings.register_profile("house", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("house")

SLOW = ("money", "torture", "e2e", "clients", "storage", "ground")
"""Folders whose files start processes and wait for them; the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which workers are given files (scripts/test tells xdist to keep it).

    The slow ones are spread among the quick ones: at no time do all workers wait, or all start gateways. None is left
    for the end, when the other workers have nothing to do any more.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    folders = {file: file.relative_to(Path(__file__).parent).parts[0] for file in files}
    slow = sorted((file for file in files if folders[file] in SLOW), key=lambda file: SLOW.index(folders[file]))
    quick = [file for file in files if folders[file] not in SLOW]
    places = {file: 0.7 * place / len(slow) for place, file in enumerate(slow)}
    places |= {file: place / len(quick) for place, file in enumerate(quick)}
    items[:] = [item for file in sorted(files, key=lambda file: places[file]) for item in files[file]]
