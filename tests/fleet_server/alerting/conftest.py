"""Alerts on SQLite and on PostgreSQL."""

from tests.fleet_server.sql.conftest import engine, postgres_url

__all__ = ["engine", "postgres_url"]
