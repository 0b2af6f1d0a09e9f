# The planner's server, and the benchmarks, on an NVIDIA GPU:
#   docker build -f docker/cuda.Dockerfile -t dfplanner:cuda .
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 dfplanner:cuda
#   docker run --rm --gpus all dfplanner:cuda bench maze2d-umaze --policy df --episodes 20
# Everything lies under $PREFIX, so that docker/steps.py can run these steps elsewhere.
FROM python:3.11.13-slim-bookworm AS build
ARG PREFIX=/opt/dfplanner
# Where pip looks for torch; empty: where it looks for everything, whose Linux build brings CUDA along.
ARG TORCH_INDEX=
# Of pyproject.toml: `serve,onnx` can also export models and serve exported ones.
ARG EXTRAS=serve
ARG PIP_NO_CACHE_DIR=1
WORKDIR $PREFIX-src
COPY constraints.txt ./
RUN python3 -m venv "$PREFIX" && \
    "$PREFIX/bin/pip" install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch
COPY . .
# What of torch is for building and testing it stays behind.
RUN "$PREFIX/bin/pip" install -c constraints.txt ".[$EXTRAS]" && \
    rm -rf "$PREFIX"/lib/python3.*/site-packages/torch/include "$PREFIX"/lib/python3.*/site-packages/torch/test

FROM python:3.11.13-slim-bookworm
ARG PREFIX=/opt/dfplanner
LABEL org.opencontainers.image.title="dfplanner" \
      org.opencontainers.image.description="The Diffusion Forcing planner's server and benchmarks, on an NVIDIA GPU" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build $PREFIX $PREFIX
# The host brings the driver, through its container toolkit; torch brings the rest.
ENV PATH=$PREFIX/bin:$PATH \
    HOME=/tmp \
    OMP_NUM_THREADS=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
ENTRYPOINT ["dfplanner"]
CMD ["serve", "--checkpoint", "maze2d-umaze", "--host", "0.0.0.0", "--device", "cuda"]
