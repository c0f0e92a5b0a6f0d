"""Fixtures that every test may ask for, and how properties are tried."""

from hypothesis import settings

from tests.support.mongod import db_name, mongo_uri, standalone_mongo_uri

__all__ = ["db_name", "mongo_uri", "standalone_mongo_uri"]

# No test is about time: how long a case takes depends on what else the machine does. The same cases every time, so that
# a run tells of the change that was made; `--hypothesis-profile=search` looks for new ones.
settings.register_profile("house", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("house")
