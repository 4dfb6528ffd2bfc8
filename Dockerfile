# Three images: `serve` (the default) contains the service and the shipped model, `bulk` is the same with Ray, `train` contains
# the training job.
#   docker build -t minimodel-serve .
#   docker build -t minimodel-bulk --target bulk .
#   docker build -t minimodel-train --target train .                                     # for NVIDIA GPUs
#   docker build -t minimodel-train --target train --build-arg TENSORFLOW=tensorflow .   # for CPUs, 4.4 GB smaller

FROM python:3.11-slim-bookworm AS base
# Write no bytecode at run time, because the root file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /srv
# A user id that no user of the host has.
RUN groupadd --gid 10001 minimodel \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin minimodel


# Dependencies change less often than code, so they get their own layer. The environment has no pip, and build tools stay
# in this stage.
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
# KERAS_HOME holds the download of CIFAR-10. The NVIDIA variables tell the container toolkit to mount the host's driver;
# the CUDA libraries are in the image.
ENV KERAS_HOME=/data \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    TF_CPP_MIN_LOG_LEVEL=2
COPY --from=train-dependencies /opt/venv /opt/venv
COPY app app
COPY training training
# Volumes mounted here inherit these permissions. Everyone may write, because the host chooses the user that runs the job.
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
# Python as process 1 ignores SIGTERM, and would be killed after the grace period. SIGINT ends it like Ctrl-C.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "training"]
CMD ["--require-gpu"]


FROM serve-dependencies AS bulk-dependencies
# KubeRay needs Ray's dashboard and job server, which the extra does not.
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bulk"], sep="\n")' \
        > bulk.txt \
    && pip --python /opt/venv/bin/python install --quiet --constraint constraints.txt --requirement bulk.txt "ray[default]"


FROM base AS bulk
# Ray's workers import the code and read the model from other folders than this one.
ENV APP_MODEL_DIR=/srv/models \
    PYTHONPATH=/srv
COPY --from=bulk-dependencies /opt/venv /opt/venv
COPY models models
COPY app app
RUN python -m compileall -q app
ARG MINIMODEL_COMMIT=unknown
ENV MINIMODEL_COMMIT=$MINIMODEL_COMMIT
LABEL org.opencontainers.image.title="minimodel bulk" \
      org.opencontainers.image.description="Classifies data sets on Ray with a trained model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision=$MINIMODEL_COMMIT
USER 10001:10001
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "app.bulk"]
CMD ["--help"]


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
# http.client, because urllib would use a proxy from the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; e = os.environ; c = http.client.HTTPConnection('127.0.0.1', int(e.get('APP_PROBE_PORT') or e['APP_PORT']), timeout=2); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "app"]
