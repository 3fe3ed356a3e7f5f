"""The fleet admin API: HTTP on loopback, a router for each resource, problem documents for every error.

``app`` joins them; ``times`` and ``pages`` are how times and cursors are written; ``problems`` what errors look like.
"""
