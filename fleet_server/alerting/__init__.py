"""Alerts: what is wrong now, since when, whose it is, and what to do about it. ``view`` is the port for showing."""
