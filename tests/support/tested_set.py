"""The versions that the tests run with, written down: pins for pip, and a bill of materials for scanners.

    python tests/support/tested_set.py    writes docs/constraints.txt and docs/sbom.cdx.json

Both hold all that an installed sdscratch needs, and what that needs in turn; of this machine's markers.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

__all__ = ["ROOT", "constraints", "installed_set", "materials", "needs", "run_time_requirements"]

ROOT = Path(__file__).parents[2]


def run_time_requirements() -> list[Requirement]:
    """What pyproject.toml asks for, with its floors."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def installed_set() -> dict[str, Distribution]:
    """All distributions that are installed for these, by their canonical names, sorted."""
    found: dict[str, Distribution] = {}
    waiting = run_time_requirements()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # torch's CUDA packages, where it is built without
            continue
        waiting += needs(found[name])
    return dict(sorted(found.items()))


def needs(package: Distribution) -> Iterator[Requirement]:
    """What a distribution needs here, extras aside."""
    for line in package.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def released(package: Distribution) -> str:
    """Its version as registries have it: "2.13.0+cpu" is a build of 2.13.0."""
    return Version(package.version).public


def constraints(packages: dict[str, Distribution]) -> str:
    """A file for `pip install -c`."""
    head = "# The versions that the tests ran with; written by `make constraints`."
    return "\n".join([head, *(f"{name}=={released(each)}" for name, each in packages.items()), ""])


def materials(packages: dict[str, Distribution]) -> str:
    """A CycloneDX 1.6 bill of materials, in JSON; the same for the same packages."""
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    record = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": ours, "bom-ref": ours}},
        "components": [component(name, each) for name, each in packages.items()],
        "dependencies": [
            {
                "ref": ours,
                "dependsOn": sorted(reference(packages, each) for each in run_time_requirements()),
            },
            *(
                {
                    "ref": package_url(name, each),
                    "dependsOn": sorted(
                        {
                            reference(packages, needed)
                            for needed in needs(each)
                            if canonicalize_name(needed.name) in packages
                        }
                    ),
                }
                for name, each in packages.items()
            ),
        ],
    }
    return json.dumps(record, indent=1) + "\n"


def component(name: str, package: Distribution) -> dict[str, Any]:
    """One package as CycloneDX has it."""
    url = package_url(name, package)
    about: dict[str, Any] = {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": released(package),
        "purl": url,
    }
    licence = package.metadata["License-Expression"]
    return about | ({"licenses": [{"expression": licence}]} if licence else {})


def package_url(name: str, package: Distribution) -> str:
    """Its package URL."""
    return f"pkg:pypi/{name}@{released(package)}"


def reference(packages: dict[str, Distribution], requirement: Requirement) -> str:
    """The package URL of what is asked for."""
    name = canonicalize_name(requirement.name)
    return package_url(name, packages[name])


if __name__ == "__main__":
    packages = installed_set()
    (ROOT / "docs" / "constraints.txt").write_text(constraints(packages))
    (ROOT / "docs" / "sbom.cdx.json").write_text(materials(packages))
    print(f"{len(packages)} packages in docs/constraints.txt and docs/sbom.cdx.json")
