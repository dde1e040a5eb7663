"""Installed in whatever way, twistd knows the commands; what setup.cfg declares is true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import twisted
from packaging.requirements import Requirement
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import __version__
from tests.source import CHECKOUT, PRODUCT, modules, tracked

COMMANDS = {"rdv-server", "onsite-dev", "master-dev"}

#: Seconds that one run of pip or twistd may take on a slow machine before a test gives up.
PATIENCE = 300


def run(command: list[str | Path], cwd: Path, **environment: str) -> str:
    """
    What a program prints.

    @param environment: added to the environment, which has no C{PYTHON...} of its own.
    @raise AssertionError: it fails.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}
    result = subprocess.run(
        command,
        cwd=cwd,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if result.returncode != 0:
        raise AssertionError(f"{command} exited with {result.returncode}:\n{result.stdout}")
    return result.stdout


def copy_of_checkout(target: Path) -> Path:
    """A copy of the sources, in which a build may leave what it likes."""
    litter = (".*", "__pycache__", "*.egg-info", "build", "dist", "_trial_temp*", "dropin.cache")
    shutil.copytree(CHECKOUT, target, ignore=shutil.ignore_patterns(*litter))
    return target


class Environment:
    """
    A virtualenv with everything that the running one has except rdvtwisted,
    by links, so that nothing is downloaded.

    Twisted is copied, since a distribution that brings a twisted/plugins of
    its own could harm it.
    """

    own = ("rdvtwisted*", "__editable__*", "tap", "tunnels", "twisted", "*.pth", "*.egg-link", "__pycache__")

    def __init__(self, base: Path) -> None:
        self.elsewhere = base / "elsewhere"
        self.elsewhere.mkdir()
        builder = venv.EnvBuilder(with_pip=False, symlinks=True)
        builder.create(base / "venv")
        self.python = base / "venv" / "bin" / "python"
        self.bin = self.python.parent
        self.packages = Path(
            run([self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], self.elsewhere).strip()
        )
        shutil.copytree(
            Path(twisted.__file__).parent,
            self.packages / "twisted",
            ignore=shutil.ignore_patterns("test", "__pycache__", "dropin.cache"),
        )
        self.lend(base / "lent", {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})

    def lend(self, shelf: Path, folders: set[str]) -> None:
        """Let the virtualenv import what is in these folders, by way of links on a shelf."""
        shelf.mkdir()
        for folder in folders:
            for path in Path(folder).iterdir():
                if not any(path.match(pattern) for pattern in self.own):
                    (shelf / path.name).symlink_to(path)
        (self.packages / "lent.pth").write_text(f"{shelf}\n")

    def pip(self, *arguments: str | Path) -> str:
        """Run pip on this environment, without network."""
        options: list[str | Path] = ["--quiet", "--disable-pip-version-check", "--no-input", "--python", self.python]
        return run([sys.executable, "-m", "pip", *options, *arguments], self.elsewhere)

    def install(self, *what: str | Path) -> None:
        """Install a source tree as it is, with the build system at hand."""
        self.pip("install", "--no-deps", "--no-index", "--no-build-isolation", *what)

    def twistd(self, *arguments: str, **environment: str) -> str:
        """What twistd prints when it is run somewhere else."""
        script = "from twisted.scripts.twistd import run; run()"
        return run([self.python, "-c", script, *arguments], self.elsewhere, **environment)

    def commands(self, **environment: str) -> set[str]:
        """Which of our commands twistd lists."""
        listing = self.twistd("--help", **environment)
        return set(re.findall(r"^ +([a-z-]+) ", listing, re.MULTILINE)) & COMMANDS

    def content(self) -> set[str]:
        """Every file among the installed packages, but those that Python and twistd write by themselves."""
        return {
            str(path.relative_to(self.packages))
            for path in self.packages.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.name != "dropin.cache"
        }


class InstallationTests(SynchronousTestCase):
    """A newcomer installs rdvtwisted in a virtualenv and calls twistd."""

    def setUp(self) -> None:
        base = Path(self.mktemp()).resolve()
        base.mkdir()
        self.environment = Environment(base)
        self.source = copy_of_checkout(base / "a copy")

    def test_nothing(self) -> None:
        """Without an installation twistd lists none of our commands: the other tests can fail."""
        self.assertEqual(self.environment.commands(), set())

    def test_regular(self) -> None:
        """After C{pip install .} twistd knows the commands; C{pip uninstall} leaves all else as it was."""
        before = self.environment.content()
        self.environment.install(self.source)
        self.assertEqual(self.environment.commands(), COMMANDS)
        script = "from importlib.metadata import version; print(version('rdvtwisted'))"
        self.assertEqual(run([self.environment.python, "-c", script], self.environment.elsewhere).strip(), __version__)

        self.environment.pip("uninstall", "--yes", "rdvtwisted")
        self.assertEqual(self.environment.content(), before)
        self.assertEqual(self.environment.commands(), set())

    def test_usage(self) -> None:
        """Each installed command imports all that it needs, and shows how it is used."""
        self.environment.install(self.source)
        for command in COMMANDS:
            self.assertIn("--help", self.environment.twistd(command, "--help"), command)
        for script in ("rdv-master", "rdvctl"):
            self.assertIn("--help", run([self.environment.bin / script, "--help"], self.environment.elsewhere), script)

    def test_editable(self) -> None:
        """After C{pip install -e .} twistd knows the commands, and what is edited takes effect."""
        self.environment.install("--editable", self.source)
        self.assertEqual(self.environment.commands(), COMMANDS)
        script = "import rdvtwisted; print(rdvtwisted.__file__)"
        imported = run([self.environment.python, "-c", script], self.environment.elsewhere).strip()
        self.assertEqual(Path(imported), self.source / "rdvtwisted" / "__init__.py")

    def test_checkout(self) -> None:
        """With a bare checkout on PYTHONPATH twistd knows the commands."""
        self.assertEqual(self.environment.commands(PYTHONPATH=str(self.source)), COMMANDS)


class DeclarationTests(SynchronousTestCase):
    """What setup.cfg says is so."""

    def setUp(self) -> None:
        self.declared = ConfigParser()
        self.declared.read(CHECKOUT / "setup.cfg", encoding="utf-8")

    def lines(self, section: str, option: str) -> list[str]:
        return [line for line in self.declared[section][option].splitlines() if line and not line.startswith("#")]

    def requirements(self) -> list[Requirement]:
        extras = [line for extra in ("test", "lint") for line in self.lines("options.extras_require", extra)]
        return [Requirement(line) for line in [*self.lines("options", "install_requires"), *extras]]

    def test_packages(self) -> None:
        """Every folder with Python in it is a package that is installed, and nothing else is."""
        folders = {
            ".".join(path.parent.relative_to(CHECKOUT).parts)
            for folder in PRODUCT
            for path in (CHECKOUT / folder).rglob("*.py")
        }
        self.assertEqual(sorted(folders), sorted(self.lines("options", "packages")))

    def test_no_init_in_twisted(self) -> None:
        """
        Neither C{twisted/} nor C{twisted/plugins/} has an C{__init__.py}: the
        first would hide Twisted, the second the plugins.
        """
        self.assertTrue((CHECKOUT / "twisted" / "plugins" / "rdv_services.py").is_file())
        self.assertEqual(list((CHECKOUT / "twisted").rglob("__init__.py")), [])

    def test_every_package_has_init(self) -> None:
        """All other packages have one, since setuptools and mypy treat those without it differently."""
        packages = [name for name in self.lines("options", "packages") if name != "twisted.plugins"]
        self.assertEqual(
            [name for name in packages if not CHECKOUT.joinpath(*name.split("."), "__init__.py").is_file()], []
        )

    def test_minimum_versions(self) -> None:
        """Each requirement names the least version that will do, and the running one will do."""
        requirements = self.requirements()
        self.assertGreater(len(requirements), 10)
        for requirement in requirements:
            self.assertEqual(
                [spec.operator for spec in requirement.specifier if spec.operator in {">=", "=="}][1:],
                [],
                f"{requirement} names two least versions",
            )
            self.assertTrue(requirement.specifier, f"{requirement} names no version")
            if requirement.marker is None or requirement.marker.evaluate():
                try:
                    installed = metadata.version(requirement.name)
                except metadata.PackageNotFoundError:
                    # The checkers need not be there to run the tests.
                    self.assertIn(str(requirement), [str(Requirement(r)) for r in self.lints()])
                    continue
                self.assertIn(installed, requirement.specifier, f"{requirement.name} {installed}")

    def lints(self) -> list[str]:
        return self.lines("options.extras_require", "lint")

    def test_imports_are_declared(self) -> None:
        """Whatever the product imports from elsewhere is a requirement by name, not by luck."""
        provided_by = _provided_by()
        # Python 3.10 does not know what 3.11 brings.
        standard = {*sys.stdlib_module_names, "tomllib"}
        wanted = {_plain(Requirement(line).name) for line in self.lines("options", "install_requires")}
        own = {"rdvtwisted", "tap", "tunnels"}
        undeclared = {
            f"{module.name}: {imported}"
            for module in modules(*PRODUCT)
            for imported in module.imports()
            if (top := imported.partition(".")[0]) not in standard | own
            and not wanted & {_plain(name) for name in provided_by.get(top, [top])}
        }
        self.assertEqual(undeclared, set())


def _provided_by() -> dict[str, set[str]]:
    """
    For each top-level name that can be imported, the distributions that bring
    it; Python 3.10's C{packages_distributions} misses most of them.
    """
    found: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        for path in distribution.files or []:
            found.setdefault(path.parts[0].partition(".")[0], set()).add(distribution.name)
    return found


def _plain(name: str) -> str:
    """The normal form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class SourceDistributionTests(SynchronousTestCase):
    """The source distribution has all that the repository has."""

    def test_complete(self) -> None:
        """Every file that git knows is in the tar file, so tests and scripts can be run from it."""
        known = {str(path) for path in tracked()}
        base = Path(self.mktemp()).resolve()
        source = copy_of_checkout(base / "copy")
        for hidden in (".ci", ".gitignore"):
            place = CHECKOUT / hidden
            (shutil.copytree if place.is_dir() else shutil.copy)(place, source / hidden)
        script = "from setuptools.build_meta import build_sdist; build_sdist('..')"
        run([sys.executable, "-c", script], source)
        (built,) = base.glob("*.tar.gz")
        with tarfile.open(built) as archive:
            packed = {member.name.partition("/")[2] for member in archive.getmembers()}
        self.assertIn("setup.cfg", known)
        self.assertEqual(known - packed, set())
