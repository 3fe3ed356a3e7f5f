"""What changes at a distance: layered configuration, the twin of each device, and how either comes to the devices.

Values and ports, but for ``service``, which has a link to the broker of its own.
"""
