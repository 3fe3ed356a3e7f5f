# The fleet server, and the one-shot that makes its site. Base images are pinned by tag; a site that wants more pins
# the digest that it has looked at.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY broker_config broker_config
COPY edge_agent edge_agent
COPY firmware_bridge firmware_bridge
COPY fleet_server fleet_server
COPY dashboards dashboards
RUN python -m venv /opt/fieldfleet && /opt/fieldfleet/bin/pip install --no-cache-dir '.[server]'

FROM python:3.11.14-slim-bookworm
# An empty volume takes owner and mode of the directory that it is mounted on: nothing here ever needs root.
RUN groupadd --gid 10001 fieldfleet \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin fieldfleet \
 && install --directory --owner=10001 --group=10001 --mode=0700 \
      /site /broker /revocations /server /signer /signing /proxy
# pg_dump and pg_restore, for fieldfleet backup
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-client-15 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/fieldfleet /opt/fieldfleet
COPY --chmod=0555 deploy/init-site.sh /opt/fieldfleet/bin/init-site
COPY --chmod=0444 deploy/containers.toml /opt/fieldfleet/share/containers.toml
ENV PATH=/opt/fieldfleet/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
CMD ["fleet-server", "run", "--config", "/server/fleet-server.toml"]
