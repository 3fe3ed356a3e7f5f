"""``fieldfleet demo``: a whole fleet on this machine, from instruments to receipts; nothing is left of it afterwards.

``fleet`` says which devices; ``rig`` makes their site and names the programs; ``programs`` starts and ends them;
``link`` is one of them, a network that can be cut; ``watch`` asks the API what happens; ``outages`` decides what a
key takes away; ``screen`` and ``show`` show it; ``command`` is the command. The programs are the product's own,
started as anybody would.
"""
