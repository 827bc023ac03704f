# Compose v2, as Debian 13 has it, beside the 1.29 of Debian 12.
ARG BASE
FROM ${BASE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends docker-compose && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["docker-compose"]
