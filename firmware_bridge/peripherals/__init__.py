"""Instruments that are only played, for the demo and for tests. No agent imports them."""
