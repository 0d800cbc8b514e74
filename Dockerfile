# syntax=docker/dockerfile:1
# The proxy in an image of its own: built here, run as nobody, without a shell.
#
#   docker build -t dsproxy .
#   docker run --rm -p 6380:6380 -p 8080:8080 -e REDIS_NODES=redis:6379 -e DATABASE_URL=postgres://... dsproxy

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock rustfmt.toml clippy.toml ./
COPY src src
COPY benches benches
COPY docs docs
COPY assets assets
COPY proxy.toml ./
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin dsproxy && cp target/release/dsproxy /dsproxy && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /dsproxy /usr/local/bin/dsproxy
COPY --from=build --chown=nonroot:nonroot /data /var/lib/dsproxy
COPY proxy.toml /etc/dsproxy/proxy.toml
COPY migrations /etc/dsproxy/migrations
ENV DSPROXY_CONFIG=/etc/dsproxy/proxy.toml \
    DSPROXY_JOURNAL_DATA_DIR=/var/lib/dsproxy \
    PROXY_ADDR=0.0.0.0:6380 \
    HTTP_ADDR=0.0.0.0:8080
EXPOSE 6380 8080
VOLUME ["/var/lib/dsproxy"]
USER nonroot
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["/usr/local/bin/dsproxy", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/dsproxy"]
CMD ["serve"]
