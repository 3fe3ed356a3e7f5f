"""The operator's data in one SQL database: SQLite beside the batch store, or PostgreSQL by URL.

The batch store is not here: it has one writer and a layout of its own.
"""
