"""Packaging of pgest. Everything that is not a tool's setting is said here."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = "0.1.0"

INSTALL_REQUIRES = [
    # TensorFlow, tf-keras and TensorFlow Probability move together: tf-keras 2.21 refuses any other
    # TensorFlow, and pgest is tested on this one. Raise all of them in one change.
    "tensorflow>=2.21,<2.22",
    "tf-keras>=2.21,<2.22",
    "tensorflow-probability>=0.25,<0.26",
    "setuptools>=68",  # TensorFlow Probability imports distutils, which left Python in 3.12.
    "tensorboard>=2.20",  # TensorFlow 2.21 no longer installs it.
    "numpy>=1.26",
    "gymnasium>=1.1",  # 1.1 is the first with AutoresetMode.
    "tqdm>=4.66",
]

NOTEBOOK = ["matplotlib>=3.8", "pandas>=2.1"]
TEST = ["pytest>=8", "pytest-xdist>=3.5", "build>=1.2", *NOTEBOOK]
LINT = ["ruff>=0.9", "mypy>=1.13"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.29"]

EXTRAS_REQUIRE = {
    "envpool": ["envpool>=1.0"],
    "notebook": [*NOTEBOOK, "jupyter"],
    "mujoco": ["gymnasium[mujoco]>=1.1"],
    "box2d": ["gymnasium[box2d]>=1.1"],
    # AtariPreprocessing resizes its images with OpenCV.
    "atari": ["gymnasium[atari]>=1.1", "opencv-python-headless>=4.8"],
    "docs": DOCS,
    "dev": [*TEST, *LINT],
    # What tests and benchmarks compare pgest with. PyTorch is large: an extra of its own.
    "peers": ["torch==2.13.0", "stable-baselines3>=2.7", "sb3-contrib>=2.7"],
}


setup(
    name="pgest",
    version=VERSION,
    description="Policy gradients the Estimator way, on today's TensorFlow.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The pgest authors",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["pgest", "pgest.*"]),
    package_data={"pgest": ["py.typed"]},
    include_package_data=False,
    zip_safe=False,
    python_requires=">=3.10,<3.14",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    keywords=["reinforcement learning", "policy gradient", "tensorflow", "estimator", "gymnasium"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
