"""What equipment managers look at: Grafana as code, in a later change."""
