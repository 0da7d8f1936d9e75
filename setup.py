"""Builds `goal_kernels._native` with CMake; everything else is in pyproject.toml.

Environment: GOAL_KERNELS_CUDA (AUTO, ON or OFF) and GOAL_KERNELS_EMULATION (ON or OFF; default: ON
for a source tree that is built in place, OFF for a wheel) are handed to CMake, see CMakeLists.txt.
CMAKE_BUILD_PARALLEL_LEVEL, CMAKE_GENERATOR, CXX and CUDACXX work as CMake documents them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Configures and builds in setuptools' temporary folder, output where setuptools expects it."""

    def run(self) -> None:
        # setuptools builds elsewhere first and forgets `inplace` meanwhile.
        self.in_source_tree = bool(self.inplace or self.editable_mode)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve() / ext.name
        configure = [
            "cmake",
            # A cache of an earlier build may name tools of an isolated environment that is gone.
            "--fresh",
            f"-S{ROOT}",
            f"-B{build}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DGOAL_KERNELS_CUDA={os.environ.get('GOAL_KERNELS_CUDA', 'AUTO')}",
            f"-DGOAL_KERNELS_EMULATION={self.emulation()}",
        ]
        if "CMAKE_GENERATOR" not in os.environ:
            configure.append("-GNinja")
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel"], check=True)

    def emulation(self) -> str:
        """Whether to build the emulation of the CUDA kernels: tests need it, users do not."""
        default = "ON" if self.in_source_tree else "OFF"
        return os.environ.get("GOAL_KERNELS_EMULATION", default)


# `depends` puts the sources into source distributions.
FOLDERS = ("csrc", "python_tests/cuda/emulation")
FILES = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.*"))
SOURCES = ["CMakeLists.txt", *(str(path.relative_to(ROOT)) for path in FILES)]

setup(
    ext_modules=[Extension("goal_kernels._native", sources=[], depends=SOURCES)],
    cmdclass={"build_ext": CMakeBuild},
)
