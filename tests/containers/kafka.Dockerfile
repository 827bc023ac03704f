# Stands in for apache/kafka where no image can be pulled: the same configuration file, the same data folder.
ARG BASE
FROM ${BASE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends default-jre-headless && rm -rf /var/lib/apt/lists/*
COPY jars /opt/kafka/libs
COPY start /start
CMD ["/start"]
