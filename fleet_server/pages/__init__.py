"""The server's own pages: what equipment managers open where there is no Grafana. Read-only, drawn on the server.

Like ``api``, this room meets capabilities through their ports alone, scoped to who asks; what each page asks for is
in ``api.rules``. No page loads anything from elsewhere, or has a script or a style in it: that is its content policy.
"""
