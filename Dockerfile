# The ingress and the consumers in one image; the chart decides which of them a pod runs.
# BASE: any image with Python 3.11 or newer, pip and venv. The second stage runs nothing, so RUNTIME may be one without
# a shell or pip, as long as its Python is the same one at the same path.
ARG BASE=python:3.13-slim-bookworm
ARG RUNTIME=${BASE}

FROM ${BASE} AS build
# So that leftovers of a build can be found and removed.
LABEL drx-bridge.stage="build"
WORKDIR /src
SHELL ["/bin/sh", "-eu", "-c"]
# hadolint ignore=DL3008 # it works on the image and is not in it
RUN command -v strip || { apt-get update && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*; }
# `requirements-archive.lock` adds the dependencies of the consumer `archive`, which are larger than all others together,
# and `requirements-otel.lock` those of traces.
ARG LOCK=requirements.lock
COPY requirements.lock requirements-archive.lock requirements-otel.lock requirements-build.lock ./
RUN python3 -m venv /build \
    && /build/bin/python -m pip install --no-cache-dir --require-hashes --requirement requirements-build.lock \
    && python3 -m venv --without-pip /opt/drx-bridge \
    && /build/bin/python -m pip --python /opt/drx-bridge/bin/python install --no-cache-dir --no-compile \
        --only-binary :all: --require-hashes --requirement "${LOCK}"
COPY pyproject.toml README.md LICENSE ./
COPY docs/sbom.py docs/
COPY schemas schemas
COPY consumers consumers
COPY bridge bridge
# Half of the installed files is debug information. Compiled here, since the root is read-only at run time; by content,
# so that the same sources give the same bytes.
RUN /build/bin/python -m hatchling build --target wheel --directory /dist \
    && /build/bin/python -m pip --python /opt/drx-bridge/bin/python install --no-cache-dir --no-compile --no-deps \
        --no-index /dist/*.whl \
    && find /opt/drx-bridge/lib -name '*.so' -exec strip --strip-debug {} + \
    && /opt/drx-bridge/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/drx-bridge/lib \
    && mkdir -p /root-of-image/usr/share/drx-bridge /root-of-image/var/lib/drx-bridge \
    && /opt/drx-bridge/bin/python docs/sbom.py > /root-of-image/usr/share/drx-bridge/sbom.cdx.json

# hadolint ignore=DL3006 # the tag or digest is part of the argument
FROM ${RUNTIME}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="drx-bridge" \
      org.opencontainers.image.description="Verified pharmacy webhooks into Kafka, and the consumers that read them." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /root-of-image/usr/share/drx-bridge /usr/share/drx-bridge
COPY --from=build --chown=10001:10001 /root-of-image/var/lib/drx-bridge /var/lib/drx-bridge
COPY --from=build /opt/drx-bridge /opt/drx-bridge
# LOGNAME: the user has no passwd entry, and operators' commands need a name for `--actor`.
ENV PATH=/opt/drx-bridge/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    LOGNAME=drx-bridge
USER 10001:10001
EXPOSE 8080 9090
CMD ["drx-bridge", "serve"]
