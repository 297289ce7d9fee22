# One image for all processes: `python -m api`, `activator`, `autoscaler`, `builder`, and the command line `knoll`.

# Everything that Knoll needs, as the lock says. This stage changes only when the lock does.
FROM python:3.13-slim AS dependencies
# A package index, a proxy's certificate (the secret): from the machine that builds, and only for this stage.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/build.txt requirements/runtime.txt /src/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca-certificates,target=/run/ca-certificates.crt \
    if [ -s /run/ca-certificates.crt ]; then export PIP_CERT=/run/ca-certificates.crt; fi \
 && python -m venv --without-pip /opt/knoll \
 && python -m venv --without-pip /opt/build \
 && pip --python /opt/knoll/bin/python install --require-hashes -r /src/requirements/runtime.txt \
 && pip --python /opt/build/bin/python install --require-hashes -r /src/requirements/build.txt

# The program of armed instances, for the architecture of the image. Without it they stay off; all else works.
FROM python:3.13-slim AS programs
COPY autoscaler/runtime/docker/programs /programs
RUN mkdir -p /programs/bin \
 && { apt-get update && apt-get install -y --no-install-recommends gcc && python3 /programs/build.py; } \
 || echo 'armed instances stay off: their program was not compiled' >&2

FROM dependencies AS wheel
COPY pyproject.toml README.md LICENSE /src/
COPY platform /src/platform
COPY api /src/api
COPY activator /src/activator
COPY autoscaler /src/autoscaler
COPY --from=programs /programs/bin /src/autoscaler/runtime/docker/programs/bin
COPY builder /src/builder
RUN pip --python /opt/build/bin/python wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels /src

FROM python:3.13-slim
# The builder hands builds to BuildKit and images to the engine: it needs the client and its plugin, no engine.
# dnsmasq answers for cluster-local names, nftables filters packets.
RUN apt-get update \
 && apt-get install -y --no-install-recommends docker-cli docker-buildx dnsmasq-base nftables \
 && rm -rf /var/lib/apt/lists/*
# 65532 is what unprivileged apps run as; the platform itself is somebody else.
RUN groupadd --gid 10001 knoll \
 && useradd --uid 10001 --gid knoll --home-dir /var/lib/knoll --no-create-home --shell /usr/sbin/nologin knoll \
 && install -d -o knoll -g knoll -m 0750 /var/lib/knoll /var/lib/knoll/uploads /var/lib/knoll/state \
 && install -d -o knoll -g knoll -m 0755 /var/lib/knoll/names /var/lib/knoll/registry \
 && install -d -o knoll -g knoll -m 0755 /var/lib/knoll/keys /var/lib/knoll/keys/redis \
 && for process in api builder autoscaler activator; do \
      install -d -o knoll -g knoll -m 0700 "/var/lib/knoll/keys/$process"; \
    done \
 && install -d -o knoll -g knoll -m 0700 /var/lib/knoll/layers /var/lib/knoll/node
COPY --chmod=0755 scripts/healthz.sh /usr/local/bin/healthz
COPY --from=dependencies /opt/knoll /opt/knoll
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/knoll/bin/python install --no-deps --no-index --no-cache-dir --root-user-action=ignore /wheels/*.whl
ENV PATH=/opt/knoll/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.title="Knoll" \
      org.opencontainers.image.description="Knative Serving in a box" \
      org.opencontainers.image.licenses="Apache-2.0"
USER knoll
WORKDIR /var/lib/knoll
ENTRYPOINT []
CMD ["knoll"]
