# Two images: the pool (`--target slotmux`, what a build without a target gives too), and the server
# for other images (`--target sandbox-server`). BuildKit makes them, and the classic builder, too.
#
#   docker build -t slotmux:local .
#
# Executables are built here, or, with PREBUILT, taken from that directory of the context; then
# RUST_IMAGE needs nothing but a shell. packaging/images.sh does that, and needs no registry.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
# What slots find: their shell, compilers, interpreters. It needs bash.
ARG BASE_IMAGE=debian:bookworm-slim

# Manifests, and empty sources where these name them: they change when dependencies do.
FROM ${RUST_IMAGE} AS manifests
ARG PREBUILT=
LABEL slotmux.prebuilt=$PREBUILT
WORKDIR /src
COPY . .
RUN find . -type f \( -name lib.rs -o -name main.rs -o -path '*/benches/*.rs' \) \
        -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} + && \
    find . -type f ! -name 'Cargo.*' ! -name lib.rs ! -name main.rs ! -path '*/benches/*.rs' -delete && \
    find . -type d -empty -delete

FROM ${RUST_IMAGE} AS build
ARG PREBUILT=
LABEL slotmux.prebuilt=$PREBUILT
WORKDIR /src
# A target is named so that build scripts and macros are not static.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_TARGET_DIR=/target \
    BUILD="cargo build --locked --profile small --target host-tuple -p slotmux -p slotmux-sandbox-server"
COPY --from=manifests /src .
# A layer of its own: dependencies are built again only when they change. What was built of the
# empty sources is forgotten, whatever the times of the real ones are.
RUN [ -n "$PREBUILT" ] || { $BUILD && rm -rf /target/*/small/.fingerprint/slotmux*; }
COPY . .
RUN if [ -z "$PREBUILT" ]; then $BUILD && PREBUILT=$(echo /target/*/small); fi && \
    mkdir /out && cp "$PREBUILT/slotmux" "$PREBUILT/slotmux-sandbox-server" /out/

# One file, to be copied into images of your own.
FROM scratch AS sandbox-server
COPY --from=build /out/slotmux-sandbox-server /slotmux-sandbox-server
# Nothing is there that could load it: this fails unless it is static.
RUN ["/slotmux-sandbox-server", "--version"]
USER 10001:10001
ENTRYPOINT ["/slotmux-sandbox-server"]

FROM ${BASE_IMAGE} AS slotmux
# The user of `docker run`. Its two directories become volumes that it can write.
RUN echo 'slotmux:x:10001:' >>/etc/group && \
    echo 'slotmux:x:10001:10001:Slotmux:/var/lib/slotmux:/usr/sbin/nologin' >>/etc/passwd && \
    mkdir -p /var/lib/slotmux/journal /var/lib/slotmux/workspaces && \
    chown -R 10001:10001 /var/lib/slotmux && chmod 711 /var/lib/slotmux /var/lib/slotmux/workspaces
# The server is for containers of an engine; those inside are started of the pool's own executable.
COPY --from=build /out/slotmux /out/slotmux-sandbox-server /usr/local/bin/
RUN ["slotmux", "--version"]
ENV SLOTMUX_LISTEN=0.0.0.0:8080 \
    SLOTMUX_STATE_DIR=/var/lib/slotmux/workspaces \
    SLOTMUX_JOURNAL=/var/lib/slotmux/journal/pool.journal
VOLUME ["/var/lib/slotmux/journal", "/var/lib/slotmux/workspaces"]
EXPOSE 8080
USER 10001:10001
# With the token of the container's environment.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["slotmux", "status"]
ENTRYPOINT ["slotmux"]
CMD ["serve"]
