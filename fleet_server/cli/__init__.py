"""The operators' command, ``fieldfleet``: it speaks to the API only.

``server`` is that conversation; ``answers`` what it reads; ``tables`` how it shows it; ``demo`` starts a whole fleet
on this machine. ``site_commands`` belongs to ``fleet-server`` and is mounted there.
"""
