"""Drives CMake; everything about the build itself is in CMakeLists.txt."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LIBRARY = "libtorch_ao_ext.so"


class CMakeBuild(build_ext):
    def get_ext_filename(self, fullname):
        # Not a Python module: no ABI suffix.
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext):
        build = Path(os.environ.get("TORCH_AO_EXT_BUILD_DIR", ROOT / "build" / "release"))
        prefix = build / "install"
        version = self.distribution.get_version()
        configure = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, f"-DTAE_VERSION={version}",
                     f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_INSTALL_PREFIX={prefix}"]
        configure += os.environ.get("TORCH_AO_EXT_CMAKE_ARGS", "").split()
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        subprocess.run(configure, check=True)
        make = ["cmake", "--build", build, "--target", "torch_ao_ext", "--parallel", jobs]
        subprocess.run(make, check=True)
        subprocess.run(["cmake", "--install", build, "--component", "library"], check=True)

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        # An editable install copies from here to the source folder, which must exist.
        for folder in (target.parent, ROOT / "torch_ao_ext" / "lib"):
            folder.mkdir(parents=True, exist_ok=True)
        # Replace, never overwrite: a process may have the old file mapped.
        fresh = target.with_suffix(".new")
        shutil.copy2(prefix / "lib" / LIBRARY, fresh)
        fresh.replace(target)
        shutil.copytree(prefix / "licenses", target.parent.parent / "licenses", dirs_exist_ok=True)


class PlatformWheel(bdist_wheel):
    def get_tag(self):
        # The library does not know Python: any Python 3, one platform.
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("torch_ao_ext.lib.libtorch_ao_ext", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": PlatformWheel},
)
