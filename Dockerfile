# Two images: `serve` (the default) holds the service and the shipped model, `train` what makes the next version.
#   docker build -t minimodel-serve .
#   docker build -t minimodel-train --target train .                                     # for NVIDIA GPUs
#   docker build -t minimodel-train --target train --build-arg TENSORFLOW=tensorflow .   # for a CPU, 4.4 GB smaller

FROM python:3.11-slim-bookworm AS base
# Nothing writes bytecode at run time: the root file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /srv
# A number above any host's own users, so that the container's user is nobody outside of it.
RUN groupadd --gid 10001 minimodel \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin minimodel


# Dependencies change less often than code and get a layer of their own. The environment has no pip of its own, and what
# built it stays behind in this stage.
FROM base AS serve-dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt ./
RUN python -m venv --without-pip /opt/venv \
    && python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > serve.txt \
    && pip --python /opt/venv/bin/python install --quiet --constraint constraints.txt --requirement serve.txt


FROM serve-dependencies AS train-dependencies
ARG TENSORFLOW=tensorflow[and-cuda]
RUN python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*extras["train"], *extras["quantize"], sep="\n")' \
        > train.txt \
    && pip --python /opt/venv/bin/python install --quiet --constraint constraints.txt --requirement train.txt "$TENSORFLOW"


FROM base AS train
# KERAS_HOME: where CIFAR-10's download is kept. The NVIDIA lines are for the container toolkit, which brings the host's
# driver in; the CUDA libraries themselves are in the image.
ENV KERAS_HOME=/data \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    TF_CPP_MIN_LOG_LEVEL=2
COPY --from=train-dependencies /opt/venv /opt/venv
COPY app app
COPY training training
# Volumes are mounted on these, and take over who may write there: anyone, since who runs the job is the host's choice.
RUN python -m compileall -q app training \
    && mkdir /data models runs \
    && chmod 1777 /data models runs
ARG MINIMODEL_COMMIT=unknown
ENV MINIMODEL_COMMIT=$MINIMODEL_COMMIT
LABEL org.opencontainers.image.title="minimodel training" \
      org.opencontainers.image.description="Trains MiniModel on a GPU and exports it as the next version" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision=$MINIMODEL_COMMIT
USER 10001:10001
# As Ctrl-C: Python as a container's first process has no handler for SIGTERM, and would be killed after the grace period.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "training"]
CMD ["--require-gpu"]


FROM base AS serve
ENV APP_HOST=0.0.0.0 \
    APP_PORT=8000
COPY --from=serve-dependencies /opt/venv /opt/venv
COPY models models
COPY app app
RUN python -m compileall -q app
ARG MINIMODEL_COMMIT=unknown
ENV MINIMODEL_COMMIT=$MINIMODEL_COMMIT
LABEL org.opencontainers.image.title="minimodel" \
      org.opencontainers.image.description="Image-classification web API with a trained model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision=$MINIMODEL_COMMIT
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Not urllib: it would ask a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['APP_PORT']), timeout=2); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "app"]
