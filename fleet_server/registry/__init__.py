"""What the bureau says of its equipment, and what that says of itself: devices, organisation tree, duty units.

Telemetry does not need it: a device that nobody registered is kept, receipted and shown all the same.
"""
