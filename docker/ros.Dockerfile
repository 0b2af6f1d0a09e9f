# The ROS 2 nodes, on Jazzy: the simulated arm, the guard, the planner.
#   docker build -f docker/ros.Dockerfile -t dfplanner:ros .
#   docker compose -f docker/compose.yaml up --build       # these, and the server
# Plans come from a server (docker/cpu.Dockerfile or cuda.Dockerfile), so there is no torch in here.
FROM ros:jazzy-ros-base-noble AS build
ARG PREFIX=/opt/dfplanner
ARG PIP_NO_CACHE_DIR=1
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR $PREFIX-src
COPY constraints.txt ./
# The system's NumPy 1.26 stays: ROS's compiled messages need it, and OpenCV must then be an older one, too. Of our
# dependencies, what the nodes import.
RUN python3 -m venv --system-site-packages "$PREFIX" && \
    grep -v -e '^numpy=' -e '^opencv' constraints.txt > ros-constraints.txt && \
    "$PREFIX/bin/pip" install -c ros-constraints.txt \
        'numpy<2' mujoco gymnasium msgpack websockets safetensors tyro 'opencv-python-headless<4.12'
COPY . .
RUN "$PREFIX/bin/pip" install --no-deps .

FROM ros:jazzy-ros-base-noble
ARG PREFIX=/opt/dfplanner
LABEL org.opencontainers.image.title="dfplanner-ros" \
      org.opencontainers.image.description="The Diffusion Forcing planner's ROS 2 nodes, on Jazzy" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build $PREFIX $PREFIX
COPY docker/heard.py $PREFIX/bin/
# The environment is an ament prefix, too: `ros2 launch dfplanner arm.launch.py` finds it.
ENV PATH=$PREFIX/bin:$PATH \
    AMENT_PREFIX_PATH=$PREFIX \
    HOME=/tmp \
    OMP_NUM_THREADS=1 \
    PYTHONUNBUFFERED=1 \
    HEALTHY_IF=planner
USER 10001:10001
WORKDIR /tmp
# `ros2 launch` ends its nodes on SIGINT, and leaves them alone on SIGTERM.
STOPSIGNAL SIGINT
# HEALTHY_IF: whose diagnostics are listened for: planner, guard, simulation, or several of them.
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
    CMD ["/ros_entrypoint.sh", "sh", "-c", "exec heard.py $HEALTHY_IF"]
# The base's entry point sources ROS.
CMD ["dfplanner", "ros", "check"]
