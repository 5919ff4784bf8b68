# One file, an image for each kind of machine:
#
#     docker build --target cpu --tag metadisco:cpu .
#     docker build --target cuda --tag metadisco:cuda .     # run with --gpus all; the host brings the driver only
#     docker build --target tpu --tag metadisco:tpu .
#     mkdir -p runs                                         # or the daemon makes it, as root's
#     docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD/runs:/runs" \
#         metadisco:cpu discover quickstart --out /runs/quickstart
#
# Without --user it runs as user 1000, who must be allowed to write in what is mounted there.
# `docker stop` sends SIGTERM: the run saves and exits with 143, and --resume goes on. Give it time: --time 120.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# Compilations that a container leaves in a volume mounted there are found by the next.
ENV XDG_CACHE_HOME=/var/cache/metadisco MPLCONFIGDIR=/var/cache/metadisco/matplotlib
# Whichever user a container runs as may write there.
RUN useradd --uid 1000 --create-home metadisco \
    && mkdir -p /runs /var/cache/metadisco \
    && chmod 1777 /runs /var/cache/metadisco
WORKDIR /opt/metadisco
COPY pyproject.toml README.md LICENSE ./
COPY constraints ./constraints
COPY metadisco ./metadisco
ENTRYPOINT ["metadisco"]
CMD ["--help"]

# The user by its number, or Kubernetes could not tell that it is not root (runAsNonRoot).
FROM base AS cuda
RUN version=$(python -c 'import sys; print("py%d%d" % sys.version_info[:2])') \
    && pip install '.[cuda]' --constraint "constraints/$version.txt"
USER 1000
WORKDIR /runs

FROM base AS tpu
RUN version=$(python -c 'import sys; print("py%d%d" % sys.version_info[:2])') \
    && pip install '.[tpu]' --constraint "constraints/$version.txt"
USER 1000
WORKDIR /runs

# The last one, so that it is what is built where nobody names a target.
FROM base AS cpu
RUN version=$(python -c 'import sys; print("py%d%d" % sys.version_info[:2])') \
    && pip install . --constraint "constraints/$version.txt"
USER 1000
WORKDIR /runs
