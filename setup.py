"""Builds the native extension modules; everything else is declared in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path("ext/penstock/_native")
SANITIZE = os.environ.get("PENSTOCK_SANITIZE")  # "address": instrumented build for the tests
PORTABLE = os.environ.get("PENSTOCK_PORTABLE")  # "1": the fallbacks used where futex or robust mutexes are missing
ONLY = os.environ.get("PENSTOCK_ONLY")  # comma separated module names, for quick rebuilds

compile_args = ["-O3", "-fno-strict-aliasing", "-Wno-unused-function", "-Wno-unreachable-code"]
link_args = ["-pthread"]
macros: list[tuple[str, str | None]] = [("CYTHON_WITHOUT_ASSERTIONS", None)]
if SANITIZE:
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}"]
    link_args += [f"-fsanitize={SANITIZE}"]
    macros = []
if PORTABLE:
    macros.append(("PENSTOCK_PORTABLE", "1"))

names = [path.stem for path in sorted(ROOT.glob("*.pyx"))]
if ONLY:
    names = [name for name in names if name in ONLY.split(",")]
extensions = [
    Extension(
        f"penstock._native.{name}",
        [f"{ROOT}/{name}.pyx"],
        include_dirs=[str(ROOT)],
        depends=[str(path) for path in sorted(ROOT.glob("*.h"))],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for name in names
]
setup(
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=cythonize(
        extensions,
        include_path=["ext"],
        build_dir="build/cython",
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "embedsignature": True,
            "show_performance_hints": True,
        },
    ),
)
