"""Fixtures that every test may ask for."""

from tests.support.mongod import db_name, mongo_uri, standalone_mongo_uri

__all__ = ["db_name", "mongo_uri", "standalone_mongo_uri"]
