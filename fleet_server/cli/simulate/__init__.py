"""``fieldfleet simulate``: a fleet's load without a fleet, against a real broker and a real server.

``device`` is one simulated device, pure: values and the time in, packets to send out; ``spool`` its numbered memory,
``readings`` what it measures, ``faults`` what befalls it and when. ``sessions`` gives each its own TLS connection;
``identities`` and ``gateway`` send for many over one connection that only a bench's broker allows. ``rig`` makes the
site, ``audit`` asks the API whether anything was lost, ``command`` is the command. No agent code is imported: what is
sent is what the contract says, by the contract's own codecs.
"""
