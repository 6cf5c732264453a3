# deferd in a container: non-root, a read-only root, one volume.
#
#   docker build -t deferd .
#   docker run --read-only -v queue:/var/spool/deferd -v ./deferd.yaml:/etc/deferd/deferd.yaml:ro deferd
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY deferred ./deferred
COPY config ./config
COPY service ./service
RUN python -m venv /opt/deferd \
 && pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
 && /opt/deferd/bin/pip install --no-cache-dir /wheel/*.whl \
 && /opt/deferd/bin/pip uninstall --quiet --yes pip \
 && /opt/deferd/bin/deferd --version

FROM ${BASE}
LABEL org.opencontainers.image.title="deferd" \
      org.opencontainers.image.description="An outbound mail daemon: drop a file, and it is delivered." \
      org.opencontainers.image.licenses="MIT"
# The number is fixed so that a volume's owner can be set before the first start.
RUN useradd --system --uid 10025 --user-group --home-dir /var/spool/deferd --no-create-home --shell /usr/sbin/nologin deferd \
 && install -d -o deferd -g deferd -m 0770 /var/spool/deferd \
 && install -d /etc/deferd \
 && ln -s /opt/deferd/bin/deferd /opt/deferd/bin/deferd-sendmail /usr/local/bin/ \
 && ln -s /opt/deferd/bin/deferd-sendmail /usr/sbin/sendmail
COPY --from=build /opt/deferd /opt/deferd
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER deferd
WORKDIR /var/spool/deferd
VOLUME /var/spool/deferd
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["deferd", "health"]
ENTRYPOINT ["deferd"]
CMD ["run"]
