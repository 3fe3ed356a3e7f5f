"""Time series for others: what the batch store holds, written again where dashboards read it.

A projection is never the ground of anything: it can be deleted and built again from the batch store.
"""
