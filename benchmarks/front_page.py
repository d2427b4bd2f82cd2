"""Runs the program of docs/index.md with five seeds; draws its curve and films its policy.

    python benchmarks/front_page.py

It writes docs/front_page.svg, the returns of the training episodes, and docs/front_page.gif: an
untrained policy beside the one that the first seed has learnt, in episodes that begin alike. It
needs `pip install ".[notebook,video]"`.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import pgest

DOCS = Path(__file__).parent.parent / "docs"
SEEDS = range(5)
EPISODE = 11  # the seed of the filmed episodes
FRAMES_A_SECOND = 25  # of the 50 of CartPole
SECONDS = 6


def program() -> str:
    """The first Python of the page, as its readers copy it."""
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]


def run(seed: int, model_dir: str) -> tuple[pgest.PGAgent, pgest.HistoryHook]:
    """Runs it with a seed, in a directory of its own, and records what it learns."""
    history = pgest.HistoryHook(pgest.Every(episodes=10))
    start, train = "    model_dir=", "max_timesteps=60_000"
    source = program()
    if source.count(start) != 1 or source.count(train) != 1:
        raise SystemExit(f"docs/index.md: {start!r} and {train!r} are not there once each")
    source = source.replace(start, f"    config=pgest.RunConfig(tf_random_seed={seed}),\n{start}")
    source = source.replace(train, f"{train}, hooks=[history]")
    source = source.replace("runs/front_page", model_dir)
    namespace: dict[str, Any] = {"history": history}
    exec(source, namespace)
    return namespace["agent"], history


def draw(histories: list[pgest.HistoryHook], path: Path) -> None:
    """The median of the seeds and the band that holds them all."""
    from matplotlib import pyplot

    grid = np.arange(0, 60_001, 500)
    curves = []
    for history in histories:
        points = [
            (record["timestep"], record["episode/return"])
            for record in history.records
            if "episode/return" in record
        ]
        timesteps, returns = zip(*points, strict=True)
        curves.append(np.interp(grid, timesteps, returns))
    pyplot.rcParams["svg.hashsalt"] = "pgest"  # equal curves are equal files
    figure, axes = pyplot.subplots(figsize=(6.4, 2.8))
    low, middle, high = np.percentile(curves, [0, 50, 100], axis=0)
    axes.fill_between(grid / 1000, low, high, alpha=0.25, linewidth=0)
    axes.plot(grid / 1000, middle)
    axes.axhline(475, color="grey", linewidth=0.8, linestyle="--")
    axes.text(0.5, 480, "solved", color="grey", fontsize=8)
    axes.set(xlabel="thousand timesteps", ylabel="return", xlim=(0, 60), ylim=(0, 510))
    axes.set_title("CartPole-v1 while it trains: five seeds, median and range", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    path.write_text(
        "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()) + "\n",
        encoding="utf-8",
    )


def film(agent: pgest.PGAgent, path: Path) -> None:
    """An untrained policy on the left, the agent on the right."""
    from PIL import Image

    untrained = pgest.PGAgent(pgest.models.PPO(), config=pgest.RunConfig(tf_random_seed=0))
    untrained.check("CartPole-v1", timesteps=0)  # without it there would be nothing to predict with
    left, right = (frames(player) for player in (untrained, agent))
    pictures = [
        Image.fromarray(np.concatenate([a, np.full_like(a[:, :4], 160), b], axis=1)).convert(
            "P", palette=Image.Palette.ADAPTIVE, colors=16
        )
        for a, b in zip(left, right, strict=True)
    ]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=1000 // FRAMES_A_SECOND,
        loop=0,
        optimize=True,
    )


def frames(agent: pgest.PGAgent) -> list[np.ndarray]:
    """Every second frame of episodes that follow one another, at half their size."""
    from PIL import Image

    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    observation, _ = env.reset(seed=EPISODE)
    shown = []
    for timestep in range(50 * SECONDS):
        if timestep % 2 == 0:
            # The mean of four pixels: every second one would leave out the track, a thin line.
            picture = Image.fromarray(env.render())
            shown.append(np.asarray(picture.reduce(2)))
        action = next(agent.predict(observation[np.newaxis]))["action"]
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset(seed=EPISODE + timestep)
    return shown


def main() -> None:
    """Runs, draws and films."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DOCS, help="where both files go")
    out = parser.parse_args().out
    runs = [run(seed, f"{tempfile.mkdtemp()}/run") for seed in SEEDS]
    for agent, _ in runs:
        print(agent.global_timestep, agent.evaluate("CartPole-v1", episodes=20)["return_mean"])
    draw([history for _, history in runs], out / "front_page.svg")
    film(runs[0][0], out / "front_page.gif")


if __name__ == "__main__":
    main()
