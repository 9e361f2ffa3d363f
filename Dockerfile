# check=error=true

# The images of Tramo: the targets server and worker. docs/reference/images.md has what they contain and need, and test/deploy
# checks this file. Buildah reads it too: no here-documents, no COPY --link.

# Where the bases come from: give a mirror of yours, or a digest, with --build-arg.
ARG NODE_IMAGE=docker.io/library/node:22-trixie-slim
ARG GO_IMAGE=docker.io/library/golang:1.27-trixie
ARG DEBIAN_IMAGE=docker.io/library/debian:trixie-slim

# The page is the same on every platform.
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS page
WORKDIR /src/web
COPY web/package.json web/package-lock.json web/.npmrc ./
RUN --mount=type=cache,target=/root/.npm npm ci --no-audit --no-fund
COPY server/openapi.yaml /src/server/
COPY web ./
RUN npm run build

# No cgo: Go compiles it for another platform by itself.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS server-build
ARG TARGETOS
ARG TARGETARCH
# The Makefile's: an older Go fetches it as a module, which the checksum database vouches for.
ARG GOTOOLCHAIN=go1.27.3+auto
ARG REVISION=unknown
WORKDIR /src
COPY . .
COPY --from=page /src/web/dist web/dist
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X github.com/tramo/tramo/telemetry.revision=$REVISION" -o /out/tramo ./cmd/tramo
# A mount gets its mode from the directory below it, where Docker makes the mount.
RUN mkdir -p -m 1777 /out/root/tmp

# cgo: compiled on the platform that it is for, by emulation if need be.
FROM ${GO_IMAGE} AS worker-build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libvips-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
ARG GOTOOLCHAIN=go1.27.3+auto
ARG REVISION=unknown
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X github.com/tramo/tramo/telemetry.revision=$REVISION" -o /out/tramo-worker ./cmd/tramo-worker

# The server and the commands of an operator: one static program and the certificate authorities.
FROM scratch AS server
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tramo" \
      org.opencontainers.image.description="Resumable uploads: tus in, S3 and Postgres behind" \
      org.opencontainers.image.source="https://github.com/tramo/tramo" \
      org.opencontainers.image.documentation="https://github.com/tramo/tramo/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=server-build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=server-build /out/root /
COPY --from=server-build /out/tramo /usr/bin/tramo
# In a container, loopback is of no use to anyone else.
ENV TRAMO_LISTEN=:8080 TRAMO_OPS_LISTEN=:9090
EXPOSE 8080/tcp 9090/tcp
USER 65532:65532
HEALTHCHECK --interval=15s --timeout=25s --start-period=1m --retries=3 CMD ["/usr/bin/tramo", "healthcheck"]
ENTRYPOINT ["/usr/bin/tramo"]
CMD ["serve"]

# The worker. Debian 13, because the libheif of Debian 12 does not open the photos of iOS 18.
FROM ${DEBIAN_IMAGE} AS worker
# libvips, with the plugins that read photos of phones (libheif only recommends them); previews of PDFs and films; the
# fonts and encodings that PDFs rely on without bringing them. No program keeps the rights of its owner (setuid).
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates ffmpeg fonts-urw-base35 libheif-plugin-aomdec \
        libheif-plugin-libde265 libvips42t64 poppler-data poppler-utils \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/debconf/*-old \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tramo-worker" \
      org.opencontainers.image.description="Processes the uploads of Tramo: virus scan, thumbnails, facts" \
      org.opencontainers.image.source="https://github.com/tramo/tramo" \
      org.opencontainers.image.documentation="https://github.com/tramo/tramo/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=worker-build /out/tramo-worker /usr/bin/tramo-worker
ENV TRAMO_OPS_LISTEN=:9091
EXPOSE 9091/tcp
USER 65532:65532
HEALTHCHECK --interval=15s --timeout=25s --start-period=1m --retries=3 CMD ["/usr/bin/tramo-worker", "healthcheck"]
ENTRYPOINT ["/usr/bin/tramo-worker"]
