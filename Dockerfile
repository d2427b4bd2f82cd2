# pgest with TensorFlow for processors, and what its commands need to draw, film and search.
#
#   docker build -t pgest .
#   mkdir -p runs  # yours, where docker would make one of root's
#   docker run --rm -v "$PWD/runs:/runs" --user "$(id -u)" pgest train --algo ppo --env CartPole-v1 --model-dir /runs/cartpole
FROM python:3.12-slim

WORKDIR /source
COPY LICENSE README.md pyproject.toml setup.py ./
COPY pgest ./pgest
# Versions are those that pyproject.toml allows.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[plot,tune,video]"

# Whoever runs it may be any user, whose home does not exist: what libraries keep goes here.
ENV HOME=/tmp \
    SDL_VIDEODRIVER=dummy \
    TF_CPP_MIN_LOG_LEVEL=3
WORKDIR /runs
RUN chmod 777 /runs
# nobody
USER 65534
# SIGTERM reaches pgest itself, which then writes a checkpoint.
ENTRYPOINT ["pgest"]
CMD ["--help"]
