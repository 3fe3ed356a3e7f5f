"""What equipment managers look at: Grafana's dashboards and provisioning as code.

Names of measurements and fields come from the device classes and from the server's own table of metrics; a query
that names anything else fails the lint. ``dashboards/grafana/`` is what ``python -m dashboards render`` writes, and
the very directory that Grafana is given.
"""
