"""``fieldfleet demo``: a whole fleet on this machine, from a sensor to a receipt, and nothing left of it afterwards.

``rig`` makes its site; ``programs`` starts and ends broker, server and agent; ``watch`` asks the API what happens;
``screen`` shows it; ``command`` is the command. The programs are the product's own, started as anybody would.
"""
