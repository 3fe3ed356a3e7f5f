"""How the fleet stands: what the server itself knows of devices, places and the site, as numbers with units.

``measures`` is the one table of their names; dashboards, alerts and pages take them from there.
"""
